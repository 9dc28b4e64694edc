"""Memory by the page: exact in the ledger, aligned, kept alive by its views."""

from __future__ import annotations

import mmap
from typing import Any

import pytest
import torch

from tightrun.runtime.memory import Ledger, OutOfMemoryError
from tightrun.runtime.page_memory import map_pages, take_pages


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 4097, (3 << 20) + 5])
def test_as_many_bytes_as_asked_from_a_page_on(nbytes: int) -> None:
    ledger = Ledger("memory", nbytes)
    taken = take_pages(ledger, nbytes, "slots")
    assert (taken.dtype, taken.numel(), taken.data_ptr() % 4096) == (torch.uint8, nbytes, 0)
    assert not taken.any()
    assert ledger.arenas == {"slots": nbytes}


def test_a_view_keeps_the_memory() -> None:
    view = map_pages(3 << 20)[5:10]
    assert view.fill_(3).sum() == 15


def test_memory_made_in_inference_mode_is_written_outside_of_it() -> None:
    with torch.inference_mode():
        made = map_pages(10)
    assert made.fill_(1).sum() == 10


def test_a_budget_is_held_to_the_byte() -> None:
    ledger = Ledger("memory", 10_000)
    take_pages(ledger, 4_000, "slots")
    with pytest.raises(OutOfMemoryError, match="kv asks for 6,001 bytes beside slots 4,000"):
        take_pages(ledger, 6_001, "kv")
    assert take_pages(ledger, 6_000, "kv").numel() == 6_000


def test_what_the_system_refuses_is_not_in_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    ledger = Ledger("memory", 10_000)
    with pytest.raises(OutOfMemoryError, match="Cannot allocate memory"):
        take_pages(ledger, 4_096, "slots")
    assert ledger.used == 0
