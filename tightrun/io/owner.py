"""Who works on an output: a process, in words by which another machine can tell if it lives."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# A job that Slurm knows in another state than these has no process that works.
_AT_WORK = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
_SQUEUE_S = 10.0

BEAT_S = 30.0
SILENT_S = 300.0
_REBOOTED_S = 3 * BEAT_S

# The states of a Slurm job, one a line, empty if it is not known any more; None: nobody to ask.
AskSlurm = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process.

    Its `pid` has a meaning on the host that was started as `boot`, within `pid_space`;
    `began_ticks` (clock ticks after the boot) tell it from a later process of that number.
    `slurm_job` is the job it is part of, or empty, `slurm_restart` how often that was requeued.
    """

    host: str
    boot: str
    pid_space: str
    pid: int
    began_ticks: int
    slurm_job: str = ""
    slurm_restart: int = 0

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}"


@dataclass(frozen=True, slots=True)
class Here:
    """This process, and what can be found out from here about others; `root` is that of /proc."""

    me: Owner
    root: Path
    ask_slurm: AskSlurm

    @classmethod
    def of(
        cls,
        environment: Mapping[str, str],
        root: Path = Path("/"),
        ask_slurm: AskSlurm | None = None,
    ) -> Here:
        """This process, as /proc and the variables of Slurm (sbatch(1)) describe it."""
        pid = os.getpid()
        restart = environment.get("SLURM_RESTART_COUNT", "")
        me = Owner(
            host=platform.node(),
            boot=_text(root / "proc/sys/kernel/random/boot_id"),
            pid_space=_link(root / "proc/self/ns/pid"),
            pid=pid,
            began_ticks=_began_ticks(root, pid) or 0,
            slurm_job=_slurm_job(environment),
            slurm_restart=int(restart) if restart.isdecimal() else 0,
        )
        return cls(me, root, ask_slurm or squeue)

    def patience_s(self, owner: Owner) -> float:
        """After how many seconds without a sign of life the owner counts as dead.

        Infinite if it is known to live, 0 if it is known to be dead.
        """
        me = self.me
        same_job = owner.slurm_job and owner.slurm_job == me.slurm_job
        if same_job and owner.slurm_restart != me.slurm_restart:
            # Slurm starts a job again only when nothing of its earlier life is left.
            return 0.0
        if owner.host == me.host and owner.boot and me.boot:
            if owner.boot != me.boot:
                # Rebooted, unless two machines have one name.
                return _REBOOTED_S
            if owner.pid_space == me.pid_space:
                lives = _began_ticks(self.root, owner.pid) == owner.began_ticks
                return math.inf if lives else 0.0
        if owner.slurm_job:
            states = self.ask_slurm(owner.slurm_job)
            if states is not None and not any(s in _AT_WORK for s in states.split()):
                return 0.0
        return SILENT_S


def squeue(job: str) -> str | None:
    """What squeue(1) says of a job; None where there is none, or it cannot be reached."""
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SQUEUE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # A job that ended long ago is an error of its own to squeue.
    forgotten = "Invalid job id" in done.stderr
    return done.stdout if done.returncode == 0 or forgotten else None


def _slurm_job(environment: Mapping[str, str]) -> str:
    array, task = (environment.get(f"SLURM_ARRAY_{name}", "") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")


def _began_ticks(root: Path, pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None if there is no such process, or it has ended."""
    text = _text(root / f"proc/{pid}/stat")
    # The name of the program stands in parentheses, and may hold anything.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
