"""What a compute device and its links are, whichever kind stands behind them.

A device computes in one order, the order of the calls. Its links move bytes beside that, each in an
order of its own: by urgency, then first come. What must not overtake what is said by `after`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from tightrun.runtime.memory import Ledger


class Urgency(IntEnum):
    """Which transfer goes first: what the next batch waits for, then weights, then write-backs."""

    FETCH = 0
    WEIGHTS = 1
    STORE = 2


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of an open file, `offset` and `nbytes` multiples of DISK_GRAIN but at its end."""

    descriptor: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Move:
    """One plain copy: `target` a contiguous uint8 tensor `[bytes]`, `source` another or a file."""

    target: Tensor
    source: Tensor | FileRange

    @property
    def nbytes(self) -> int:
        return self.target.numel()


class Happening(Protocol):
    """Something that will have happened: a transfer, a piece of host work, a point of compute."""

    @property
    def done(self) -> bool: ...
    @property
    def error(self) -> BaseException | None:
        """Why it failed, once it is over."""


class Transfer(Happening, Protocol):
    """Moves under way on a link, or work of the host lane. Times are the device's `now`."""

    name: str
    nbytes: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class LaneSpan:
    """What a lane did from `start_s` to `end_s` of the device's clock; `nbytes` 0 for compute."""

    lane: str
    name: str
    start_s: float
    end_s: float
    nbytes: int = 0


class Link(Protocol):
    """One direction of one channel. `moved_bytes` and `busy_s` only grow."""

    name: str
    moved_bytes: int
    busy_s: float

    def send(
        self,
        moves: Sequence[Move],
        urgency: Urgency,
        name: str,
        after: Sequence[Happening] = (),
    ) -> Transfer:
        """Take the moves on; they begin when all of `after` has happened. Never blocks.

        An error of the link is raised by `wait` and `settle` for the transfer.
        """


class HostLane(Protocol):
    """Small work of the processor beside the computing, such as spreading rows that arrived."""

    busy_s: float

    def send(
        self, work: Callable[[], None], name: str, after: Sequence[Happening] = ()
    ) -> Transfer:
        """Take the work on; it begins when all of `after` has happened, in order of sending."""


class Device(Protocol):
    """A compute device with its memory, the host's, and the links between them and the disk.

    On a CPU `memory` and `host_memory` are one ledger and `link_in`, `link_out` copy inside it.
    """

    kind: str  # "cpu", "emulated", "cuda", "fake"
    torch: torch.device
    memory: Ledger
    host_memory: Ledger
    link_in: Link  # host -> device
    link_out: Link  # device -> host
    disk: Link  # disk -> host memory (on a CPU: into the slots themselves)
    host: HostLane
    computing_s: float
    waited_s: float  # seconds that `wait` held up the calling thread

    def now(self) -> float:
        """Seconds of the device's clock."""

    def empty(self, nbytes: int, arena: str) -> Tensor:
        """Device memory, uint8 `[nbytes]`, aligned to 4096 bytes.

        Raises OutOfMemoryError if the ledger would be exceeded.
        """

    def empty_host(self, nbytes: int, arena: str) -> Tensor:
        """Host memory the links can read and write at full speed (pinned), uint8 `[nbytes]`."""

    def compute(self, name: str, work: Callable[[], None], workspace_bytes: int = 0) -> None:
        """Do the work on the device in order, and enter the time it takes on the compute lane.

        It takes `workspace_bytes` of the device's memory for as long. Raises OutOfMemoryError where
        the ledger has no room for them; CUDA's allocator counts, and refuses, by itself.
        """

    def mark(self) -> Happening:
        """The point at which everything computed so far is done."""

    def wait(self, *happenings: Happening) -> None:
        """Let what is computed from now on begin after these. On CUDA the host does not wait."""

    def settle(self, *happenings: Happening) -> None:
        """Let the calling thread wait for these."""

    def spans(self) -> list[LaneSpan]:
        """What the lanes did since the last call, as far as it is over."""

    def close(self) -> None:
        """End the links' threads. Transfers under way are abandoned."""
