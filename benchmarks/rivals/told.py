"""What the rivals' programs are told, and the one line in which they answer."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Generate = Callable[[Sequence[list[int]], int], int]
WARM_UP_EVERY = 4
WARM_UP_TOKENS = 3


def parser() -> argparse.ArgumentParser:
    """A parser for what every rival needs; paths as in `benchmarks.jobs.PreparedJob`."""
    told = argparse.ArgumentParser()
    told.add_argument("--model", type=Path, required=True)
    told.add_argument("--prompts", type=Path, required=True)
    told.add_argument("--max-tokens", type=int, required=True)
    return told


def read_prompts(path: Path) -> list[list[int]]:
    """The prompts as token ids."""
    prompts: list[list[int]] = json.loads(path.read_text())
    return prompts


def measure(generate: Generate, prompts: list[list[int]], max_tokens: int) -> tuple[int, float]:
    """(tokens, seconds) of `generate(prompts, max_tokens)`, which returns the tokens it made,
    after a warm-up on every fourth prompt."""
    generate(prompts[::WARM_UP_EVERY], WARM_UP_TOKENS)
    began = time.perf_counter()
    tokens = generate(prompts, max_tokens)
    return tokens, time.perf_counter() - began


def answer(
    tokens: int, seconds: float, peak_bytes: int, packages: Sequence[str], **details: Any
) -> None:
    """Prints the line that `benchmarks.turns` reads; `packages` are told with their versions."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    measured = {"tokens": tokens, "seconds": seconds, "peak_bytes": peak_bytes}
    print(json.dumps({**measured, "versions": versions, **details}), flush=True)


def peak_bytes() -> int:
    """Peak resident memory of this process and of those it has started and that still run."""
    if not Path("/proc/self/status").exists():
        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return sum(_high_water(pid) for pid in _with_children(os.getpid()))


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_children(int(child))


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
