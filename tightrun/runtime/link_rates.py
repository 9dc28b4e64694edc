"""How fast the links are: given by the machine of the job, else measured in a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from tightrun.policies.hardware import Rates
from tightrun.runtime.device import Device, Link, Move, Urgency
from tightrun.runtime.options import Machine

PROBE_BYTES = 64 * 2**20
PIECE = 4 * 2**20


def with_links(
    rates: Rates, device: Device, machine: Machine | None, disk_moves: Sequence[Move]
) -> Rates:
    """The rates with those of the links; `disk_moves` read something that is on the disk."""
    given = (machine.h2d, machine.d2h, machine.disk_read) if machine else (None, None, None)
    h2d = d2h = 0.0
    if device.kind != "cpu":
        there = torch.empty(PROBE_BYTES, dtype=torch.uint8)
        here = torch.empty(PROBE_BYTES, dtype=torch.uint8, device=device.torch)
        if device.torch.type == "cuda":
            there = there.pin_memory()
        h2d = given[0] or _measured(device, device.link_in, [Move(here, there)])
        d2h = given[1] or _measured(device, device.link_out, [Move(there, here)])
    disk = given[2] or (_measured(device, device.disk, disk_moves) if disk_moves else 0.0)
    return replace(rates, h2d_bytes_per_s=h2d, d2h_bytes_per_s=d2h, disk_bytes_per_s=disk)


def _measured(device: Device, link: Link, moves: Sequence[Move]) -> float:
    """Bytes per second of the better of two runs."""
    best = 0.0
    for _ in range(2):
        start = device.now()
        transfer = link.send(moves, Urgency.FETCH, "probe")
        device.settle(transfer)
        best = max(best, transfer.nbytes / (device.now() - start))
    return best


@contextmanager
def links_running(device: Device) -> Iterator[None]:
    """Keep an emulated link in busy: its copies take some of the processor that computes."""
    if device.kind != "emulated":
        yield
        return
    over = threading.Event()
    here = torch.zeros(PIECE, dtype=torch.uint8)
    there = torch.zeros(PIECE, dtype=torch.uint8)

    def pump() -> None:
        while not over.is_set():
            device.settle(device.link_in.send([Move(here, there)], Urgency.STORE, "probe"))

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
