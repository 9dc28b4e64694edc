"""The ledger of one memory: which arena holds how many bytes, and the budget nobody may exceed."""

from __future__ import annotations

from collections.abc import Callable

# Told the name and the bytes of what is about to take memory: true lets it fail. A test's way to
# run out of memory at any moment.
Faults = Callable[[str, int], bool]
# What computing takes while it lasts.
WORKSPACE = "workspace"


class OutOfMemoryError(MemoryError):
    """An arena asked for more bytes than its memory's budget has left; the message is the sum."""


class Ledger:
    """Bytes of one memory by arena. Counts what is asked for, to the byte."""

    def __init__(self, name: str, budget: int) -> None:
        self.name = name
        self.budget = budget
        self.arenas: dict[str, int] = {}
        self.peak = 0

    @property
    def used(self) -> int:
        return sum(self.arenas.values())

    @property
    def free(self) -> int:
        return self.budget - self.used

    def take(self, nbytes: int, arena: str) -> None:
        """Enter bytes to an arena. Raises OutOfMemoryError if the budget would be exceeded."""
        assert nbytes >= 0
        if nbytes > self.free:
            held = " + ".join(f"{name} {size:,}" for name, size in self.arenas.items() if size)
            raise OutOfMemoryError(
                f"{self.name}: {arena} asks for {nbytes:,} bytes beside {held or 'nothing'}, "
                f"but {self.budget:,} bytes are all there is"
            )
        self.arenas[arena] = self.arenas.get(arena, 0) + nbytes
        self.peak = max(self.peak, self.used)

    def give(self, nbytes: int, arena: str) -> None:
        """Take bytes of an arena out again."""
        assert self.arenas.get(arena, 0) >= nbytes, f"{arena} gives back more than it took"
        self.arenas[arena] -= nbytes
