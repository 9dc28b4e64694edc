"""What counts as being out of memory, and what a pass says of itself that ran into it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tightrun.runtime import sequence
from tightrun.runtime.batch import Batch, Segment

# Where torch has no error of its own for it: its allocator on a processor, and CUDA's libraries.
WORDS = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_memory_failure(error: BaseException | None) -> bool:
    """Whether it, or what it came from, is that some memory has no room."""
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError, PassOutOfMemoryError)):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS):
            return True
        error = error.__cause__
    return False


@dataclass(frozen=True, slots=True)
class MemoryFailure:
    """A batch that ran out of memory: `where` is the stage ("" if it was in none), `rows` are its
    rows, those that it computed again included, `sequences` whose they were."""

    where: str
    rows: int
    sequences: tuple[sequence.Sequence, ...]
    reason: str


class PassAbandonedError(Exception):
    """The pass was given up on the way. Nothing of it counts."""


class PassOutOfMemoryError(PassAbandonedError):
    """The pass was given up because memory ran out."""

    def __init__(self, failure: MemoryFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def failure_of(batch: Batch, where: str, error: BaseException) -> MemoryFailure:
    """What a batch ran into."""
    rows = batch.tokens - batch.padding
    return MemoryFailure(where, rows, _owners(batch.segments), first_line(error))


def failure_anywhere(block: Sequence[Sequence[Segment]], error: BaseException) -> MemoryFailure:
    """What a pass ran into outside of its batches: its widest one stands for it."""
    segments = max(block, key=lambda x: sum(s.tokens for s in x))
    rows = sum(s.tokens for s in segments)
    return MemoryFailure("", rows, _owners([s for x in block for s in x]), first_line(error))


def _owners(segments: Sequence[Segment]) -> tuple[sequence.Sequence, ...]:
    return tuple(dict.fromkeys(s.sequence for s in segments))


def first_line(error: BaseException) -> str:
    """What the error says; torch adds a page of advice."""
    return (str(error).splitlines() or [type(error).__name__])[0]
