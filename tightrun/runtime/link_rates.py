"""How fast the links are: given by the machine of the job, else measured in a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle

import torch

from tightrun.policies.hardware import Rates
from tightrun.runtime.cold import places
from tightrun.runtime.device import Device, Link, Move, Urgency
from tightrun.runtime.options import Machine

PROBE_BYTES = 64 * 2**20
PIECE = 4 * 2**20
ALL_PIECES, SLOTS = 2**40, 2
Sent = tuple[Link, Sequence[Move]]


def with_links(
    rates: Rates, device: Device, machine: Machine | None, disk_moves: Sequence[Move]
) -> Rates:
    """The rates with those of the links; `disk_moves` read something that is on the disk."""
    given = (machine.h2d, machine.d2h, machine.disk_read) if machine else (None, None, None)
    h2d = d2h = duplex = 0.0
    if device.kind != "cpu" and not (given[0] and given[1]):
        into, out = _copies(device, device.link_in), _copies(device, device.link_out, back=True)
        h2d, d2h = given[0] or _measured(device, into), given[1] or _measured(device, out)
        if not (given[0] or given[1]):
            duplex = _measured(device, into, out)
    elif device.kind != "cpu":
        h2d, d2h = given[0] or 0.0, given[1] or 0.0
    disk = given[2]
    if disk is None:
        disk = _measured(device, (device.disk, disk_moves)) if disk_moves else 0.0
    return replace(
        rates,
        h2d_bytes_per_s=h2d,
        d2h_bytes_per_s=d2h,
        disk_bytes_per_s=disk,
        duplex_bytes_per_s=duplex,
    )


def _copies(device: Device, link: Link, *, back: bool = False) -> Sent:
    """A copy between host and device that the link can be measured with."""
    there = torch.empty(PROBE_BYTES, dtype=torch.uint8)
    here = torch.empty(PROBE_BYTES, dtype=torch.uint8, device=device.torch)
    if device.torch.type == "cuda":
        there = there.pin_memory()
    return link, [Move(there, here) if back else Move(here, there)]


def _measured(device: Device, *sent: Sent) -> float:
    """Bytes per second of the better of two runs, of all that is sent at once."""
    best = 0.0
    for _ in range(2):
        start = device.now()
        transfers = [link.send(moves, Urgency.FETCH, "probe") for link, moves in sent]
        device.settle(*transfers)
        best = max(best, sum(t.nbytes for t in transfers) / (device.now() - start))
    return best


@contextmanager
def links_running(device: Device) -> Iterator[None]:
    """Keep an emulated link in busy: its copies take some of the processor that computes, and come
    from memory, not from its caches."""
    if device.kind != "emulated":
        yield
        return
    over = threading.Event()
    here = torch.zeros(places(PIECE, ALL_PIECES, device.torch), PIECE, dtype=torch.uint8)
    there = torch.zeros(SLOTS, PIECE, dtype=torch.uint8)

    def pump() -> None:
        for piece, slot in zip(cycle(here), cycle(there), strict=False):
            if over.is_set():
                return
            device.settle(device.link_in.send([Move(piece, slot)], Urgency.STORE, "probe"))

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
