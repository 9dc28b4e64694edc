"""What counts as being out of memory."""

from __future__ import annotations

import errno
import mmap

import numpy as np
import pytest
import torch

from tightrun.runtime.memory import Ledger, OutOfMemoryError
from tightrun.runtime.memory_failures import is_memory_failure

FAR_TOO_MUCH = 2**46


def test_torchs_allocator_on_a_processor() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(FAR_TOO_MUCH, dtype=torch.uint8)
    assert is_memory_failure(raised.value)


def test_numpys() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(FAR_TOO_MUCH, dtype=np.uint8)
    assert is_memory_failure(raised.value)


def test_the_systems() -> None:
    with pytest.raises(OSError) as raised:
        mmap.mmap(-1, FAR_TOO_MUCH)
    assert raised.value.errno == errno.ENOMEM
    assert is_memory_failure(raised.value)


def test_a_ledgers() -> None:
    with pytest.raises(OutOfMemoryError) as raised:
        Ledger("memory", 10).take(11, "kv")
    assert is_memory_failure(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_cudas(error: Exception) -> None:
    assert is_memory_failure(error)


def test_what_came_from_one_of_them() -> None:
    error = RuntimeError("spread 3 failed")
    error.__cause__ = MemoryError()
    assert is_memory_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "disk full"),
        ValueError("out of memory"),
        None,
    ],
)
def test_nothing_else(error: Exception | None) -> None:
    assert not is_memory_failure(error)
