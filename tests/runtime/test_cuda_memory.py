"""Pinned host memory is exact in size, registered in pieces, and let go of in order."""

from __future__ import annotations

import pytest

from tests.runtime.stand_in_cuda import StandInCuda
from tightrun.runtime.cuda_memory import RegisteredMemory
from tightrun.runtime.memory import Ledger, OutOfMemoryError


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandInCuda:
    return StandInCuda(monkeypatch)


def test_exactly_what_is_asked_is_registered(cuda: StandInCuda) -> None:
    pinned = RegisteredMemory(Ledger("host memory", 10_000))
    taken = pinned.take(9_999, "kv")
    assert cuda.runtime.registered == {taken.data_ptr(): 9_999}


def test_large_memory_is_registered_in_pieces_whose_seams_are_known(cuda: StandInCuda) -> None:
    pinned = RegisteredMemory(Ledger("host memory", 10_000), piece_bytes=4096)
    begin = pinned.take(9_000, "kv").data_ptr()
    assert cuda.runtime.registered == {begin: 4096, begin + 4096: 4096, begin + 8192: 808}
    assert pinned.seams == [begin + 4096, begin + 8192]


def test_what_cannot_be_pinned_is_not_in_the_ledger_and_says_what_to_do(cuda: StandInCuda) -> None:
    ledger = Ledger("host memory", 10_000)
    cuda.runtime.status = 2
    with pytest.raises(OutOfMemoryError, match=r"pins no 9,000 bytes.*limits\.cpu_memory"):
        RegisteredMemory(ledger).take(9_000, "kv")
    assert ledger.used == 0


def test_close_unpins_all(cuda: StandInCuda) -> None:
    pinned = RegisteredMemory(Ledger("host memory", 10_000), piece_bytes=4096)
    pinned.take(9_000, "kv")
    pinned.close()
    assert not cuda.runtime.registered
