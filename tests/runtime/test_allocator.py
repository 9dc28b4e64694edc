"""Freed buffers stay in the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from tightrun.runtime.allocator import keep_freed_memory
kept = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    for _ in range(20):
        torch.ones(2**24)
use()
before = faults()
use()
print(kept, faults() - before)
"""


def test_a_buffer_used_again_costs_no_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    kept, faults = done.stdout.split()
    if kept != b"True":
        pytest.skip("this C library has no mallopt")
    # One buffer is 16,384 pages of 4 KiB, and there are twenty.
    assert int(faults) < 16_384


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_was_freed_can_be_given_back() -> None:
    script = """
import psutil, torch
from tightrun.runtime.allocator import give_back_freed_memory, keep_freed_memory
rss = lambda: psutil.Process().memory_info().rss
if not keep_freed_memory():
    print(0, 0, 0)
else:
    start = rss()
    parts = [torch.ones(2**20) for _ in range(64)]
    del parts
    kept = rss()
    give_back_freed_memory()
    print(start, kept, rss())
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    start, kept, given = map(int, out.stdout.split())
    if kept - start > 64 * 2**20:
        assert given - start < (kept - start) / 4
