"""Machines that are folders: what a process finds in /proc, and what Slurm would answer there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tightrun.io.owner import Here


def machine(
    root: Path,
    *,
    host: str = "node1",
    boot: str = "boot-1",
    pid_space: str = "pid:[1]",
    pids: Mapping[int, int] | None = None,
    me: int = 100,
    mounted: str = "nfs4",
    slurm: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Here:
    """The process `me` on a machine whose processes `pids` began at those ticks.

    All its files lie on a file system of the kind `mounted`; `slurm` is what squeue says.
    """
    write(root / "proc/sys/kernel/random/boot_id", f"{boot}\n")
    write(root / "proc/self/mountinfo", f"27 1 0:5 / / rw,relatime - {mounted} server rw\n")
    (root / "proc/self/ns").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/ns/pid").unlink(missing_ok=True)
    (root / "proc/self/ns/pid").symlink_to(pid_space)
    for pid, ticks in (pids or {me: 1_000 + me}).items():
        run_process(root, pid, ticks)
    here = Here.of(environment or {}, root, lambda _job: slurm)
    began = (pids or {}).get(me, 1_000 + me)
    return replace(here, me=replace(here.me, host=host, pid=me, began_ticks=began))


def run_process(root: Path, pid: int, ticks: int, state: str = "S") -> None:
    """A process, or what is left of one."""
    write(root / f"proc/{pid}/stat", f"{pid} (a) b) {state} {' 0' * 18} {ticks} 0 0\n")


def end_process(root: Path, pid: int) -> None:
    """Nothing is left of it."""
    (root / f"proc/{pid}/stat").unlink()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
