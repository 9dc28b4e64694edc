"""Memory of a card and host memory its links reach at full speed, both exact in size.

torch's own pinned allocator rounds up to a power of two; here a mapping of the asked size is
registered instead. Source: CUDA runtime API, `cudaHostRegister`.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

import torch

from tightrun.runtime.memory import Ledger, OutOfMemoryError
from tightrun.runtime.page_memory import take_pages

ALIGNMENT = 4096
# Larger pieces have been refused by drivers.
REGISTERED_BYTES = 64 << 30
REGISTER_PORTABLE = 1


def take_device(ledger: Ledger, device: torch.device, nbytes: int, arena: str) -> torch.Tensor:
    """Memory of the card, uint8 `[nbytes]`, aligned to 4096 bytes, entered in the ledger.

    Raises OutOfMemoryError if the ledger's budget or the card's memory is exceeded.
    """
    ledger.take(nbytes, arena)
    try:
        with torch.inference_mode(False):
            taken = _aligned(device, nbytes)
    except torch.cuda.OutOfMemoryError as error:
        ledger.give(nbytes, arena)
        raise OutOfMemoryError(
            f"{ledger.name}: the card has no {nbytes:,} bytes left for {arena}, though the budget "
            "has: something else takes memory of it; free it, or lower limits.gpu_memory"
        ) from error
    # What held this block before may still be computed on, and links do not wait for that stream.
    torch.cuda.current_stream(device).synchronize()
    return taken


class RegisteredMemory:
    """Host memory that is pinned to a card until `close`. `seams` are where its pieces meet."""

    def __init__(self, ledger: Ledger, piece_bytes: int = REGISTERED_BYTES) -> None:
        assert piece_bytes % ALIGNMENT == 0
        self.seams: list[int] = []
        self._ledger = ledger
        self._piece_bytes = piece_bytes
        self._registered: list[int] = []
        self._mapped: list[torch.Tensor] = []

    def take(self, nbytes: int, arena: str) -> torch.Tensor:
        """Memory of exactly this size, uint8 `[nbytes]`, entered in the ledger.

        Raises OutOfMemoryError if the budget is exceeded or the system pins no more.
        """
        mapped = take_pages(self._ledger, nbytes, arena)
        # Kept: memory must stay mapped for as long as it is registered.
        self._mapped.append(mapped)
        for begin in range(0, nbytes, self._piece_bytes):
            address = mapped.data_ptr() + begin
            size = min(self._piece_bytes, nbytes - begin)
            status = _register(address, size)
            if status:
                self._ledger.give(nbytes, arena)
                raise OutOfMemoryError(
                    f"{self._ledger.name}: the system pins no {nbytes:,} bytes for {arena} (CUDA "
                    f"error {status}); lower limits.cpu_memory, or raise the limit on locked "
                    "memory (ulimit -l)"
                )
            self._registered.append(address)
            if begin:
                insort(self.seams, address)
        return mapped

    def close(self) -> None:
        """Unpin all. No copy may be under way; the memory stays as long as somebody views it."""
        for address in self._registered:
            _cudart().cudaHostUnregister(address)
        self._registered.clear()
        self._mapped.clear()
        self.seams.clear()


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _register(address: int, nbytes: int) -> int:
    return int(_cudart().cudaHostRegister(address, nbytes, REGISTER_PORTABLE))


def _aligned(device: torch.device, nbytes: int) -> torch.Tensor:
    """torch aligns to 512 bytes only; large blocks begin at a larger boundary anyway."""
    exact = torch.empty(nbytes, dtype=torch.uint8, device=device)
    if exact.data_ptr() % ALIGNMENT == 0:
        return exact
    room = torch.empty(nbytes + ALIGNMENT, dtype=torch.uint8, device=device)
    begin = -room.data_ptr() % ALIGNMENT
    return room[begin : begin + nbytes]
