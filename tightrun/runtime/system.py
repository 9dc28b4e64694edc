"""Where the limits of this process are read: files, environment, system calls, GPU driver."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tightrun.runtime.rlimits import GetLimit


def _affinity() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0))


def _pynvml() -> Any:
    import pynvml

    return pynvml


@dataclass(frozen=True, slots=True)
class System:
    """A system to read limits from; by default the one this process runs on.

    `root` stands for its root folder; `nvml` gives the module that speaks to NVIDIA's driver.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    getrlimit: GetLimit = resource.getrlimit
    affinity: Callable[[], frozenset[int]] = _affinity
    nvml: Callable[[], Any] = _pynvml
