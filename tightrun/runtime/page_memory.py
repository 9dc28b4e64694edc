"""Memory by the page: exact in size, aligned, and backed by large pages where there are some."""

from __future__ import annotations

import mmap

import torch

from tightrun.runtime.memory import Ledger, OutOfMemoryError

LARGE_PAGE = 2 << 20


def map_pages(nbytes: int) -> torch.Tensor:
    """Zeroed memory of the process, uint8 `[nbytes]`, aligned to a page; freed with its last view.

    Raises OSError if there is none left.
    """
    if nbytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    # Links write to it from threads that are not in inference mode.
    with torch.inference_mode(False):
        return torch.frombuffer(pages, dtype=torch.uint8)


def zeros_unwritten(nbytes: int, device: torch.device) -> torch.Tensor:
    """Zeros that are only read, uint8 `[nbytes]`: on a CPU they take no memory, and no time."""
    if device.type == "cpu":
        return map_pages(nbytes)
    return torch.zeros(nbytes, dtype=torch.uint8, device=device)


def take_pages(ledger: Ledger, nbytes: int, arena: str) -> torch.Tensor:
    """`map_pages`, entered in a ledger. Whoever drops the memory again gives it back there.

    Raises OutOfMemoryError if the ledger's budget or the memory itself is exceeded.
    """
    ledger.take(nbytes, arena)
    try:
        return map_pages(nbytes)
    except OSError as error:
        ledger.give(nbytes, arena)
        raise OutOfMemoryError(
            f"{ledger.name}: no {nbytes:,} bytes for {arena}: {error}"
        ) from error
