"""A control group of its own for a test, with a memory limit; made in whichever way is allowed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightrun.runtime.cgroups import Group, memory_groups

ENTER = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
SYSTEMD_RUN = ["systemd-run", "--scope", "--quiet", "--collect"]


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """What to put before a command that is to run under the limit; `words` name the limit."""

    prefix: tuple[str, ...]
    words: str
    folder: Path | None = None

    def peak_bytes(self) -> int | None:
        """The most that was in use at once, page cache included; None where it cannot be asked."""
        names = ("memory.peak", "memory.max_usage_in_bytes")
        found = [self.folder / name for name in names] if self.folder else []
        return next((int(path.read_text()) for path in found if path.exists()), None)

    def kills(self) -> int:
        """Processes killed for the limit."""
        names = ("memory.events", "memory.oom_control")
        found = [self.folder / name for name in names] if self.folder else []
        lines = [x for path in found if path.exists() for x in path.read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextlib.contextmanager
def memory_group(limit_bytes: int, name: str) -> Iterator[MemoryGroup | None]:
    """A group that may use `limit_bytes`, gone afterwards; None where none can be made."""
    folder = _made(limit_bytes, name)
    if folder is None:
        yield _scope(limit_bytes)
        return
    try:
        file = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
        yield MemoryGroup(("sh", "-c", ENTER, str(folder)), file, folder)
    finally:
        _remove(folder)


def _made(limit_bytes: int, name: str) -> Path | None:
    """Below one of our own groups only: what limits us shall limit what the test starts."""
    for group in memory_groups():
        folder = group.folder / name
        file = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
        if not _hands_memory_on(group):
            continue
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / file).write_text(str(limit_bytes))
        except OSError:
            folder.rmdir()
            continue
        return folder
    return None


def _hands_memory_on(group: Group) -> bool:
    """Whether groups below it may limit memory; in v2 that is for their parent to say."""
    handed_on = group.folder / "cgroup.subtree_control"
    return group.version == 1 or "memory" in handed_on.read_text().split()


def _remove(folder: Path) -> None:
    """The kernel may need a moment until the last process is gone from a group."""
    for _ in range(50):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
    folder.rmdir()


def _scope(limit_bytes: int) -> MemoryGroup | None:
    """A scope of systemd, the system's or else the user's."""
    if shutil.which(SYSTEMD_RUN[0]) is None:
        return None
    for manager in ("--system", "--user"):
        command = (*SYSTEMD_RUN, manager, "-p", f"MemoryMax={limit_bytes}")
        try:
            tried = subprocess.run([*command, "true"], capture_output=True, timeout=10)
        except subprocess.TimeoutExpired:
            continue
        if tried.returncode == 0:
            return MemoryGroup(command, "memory.")
    return None
