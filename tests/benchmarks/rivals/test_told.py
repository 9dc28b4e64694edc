"""What the programs of the rivals share: the clock's limits, and the memory they count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.rivals.told import measure, peak_bytes


def test_the_warm_up_is_a_part_of_the_job_and_counts_no_token() -> None:
    asked = []

    def generate(prompts: Sequence[list[int]], max_tokens: int) -> int:
        asked.append((len(prompts), max_tokens))
        return len(prompts) * max_tokens

    tokens, seconds = measure(generate, [[1]] * 8, 64)
    assert asked == [(2, 3), (8, 64)]
    assert tokens == 8 * 64
    assert seconds >= 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts by Linux's /proc")
def test_peak_memory_counts_the_processes_that_were_started() -> None:
    before = peak_bytes()
    waiting = "x = bytearray(50_000_000); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = peak_bytes()
        child.communicate("\n")
    assert during > before + 50_000_000
