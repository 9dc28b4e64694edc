"""The batch script that runs a job under Slurm, alone or as an array whose tasks share the rows."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tightrun.cli.output_at import place_of, refuse_shared
from tightrun.io.job import Job, load_job
from tightrun.io.job_sections import Machine

# So long before the end of its time a task is told to end: as long as saving may take, and more.
_WARNING_S = 180

_SCRIPT = """\
#!/bin/bash
# {about}
# Printed by tightrun {version}; your cluster may want more, such as an account or a partition.

{directives}

# Three minutes before its time is up a task gets USR2. It keeps what is finished and what the other
# rows have drawn, ends with 75, is queued again and goes on from there. Tasks of an array share the
# rows: each takes shards of the output that nobody has, a late one what is left, and those of a
# task that is lost go to the others. All of them must see the folder of the output.
srun {command}
code=$?

if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID" || echo "submit the job again and it goes on from here"
fi
exit "$code"
"""


def batch_script(
    job_file: Path, overrides: Sequence[str], *, array: int, gpus: int | None, time: str
) -> str:
    """The script, for `array` tasks with `gpus` each: None for one, if the job may use any.

    Raises JobError for a job file that cannot be run, OutputError for several tasks or GPUs that
    cannot share its output.
    """
    job = load_job(job_file, overrides=overrides)
    if gpus is None:
        gpus = 1 if _may_use_gpu(job) else 0
    path, place = job_file.resolve(), place_of(job.output.path)
    command = [_program(), "run", str(path)]
    if array > 1 or gpus > 1:
        refuse_shared(place)
    if place.url is None:
        command.append("--share")
    if gpus > 1:
        command += ["--workers", "auto"]
    for override in overrides:
        command += ["--set", override]
    return _SCRIPT.format(
        about=f"Runs {path}",
        version=metadata.version("tightrun"),
        directives="\n".join(_directives(job, path, array, gpus, time)),
        command=shlex.join(command),
    )


def _directives(job: Job, path: Path, array: int, gpus: int, time: str) -> list[str]:
    name = re.sub(r"[^\w.-]", "-", path.stem)
    memory = job.limits.cpu_memory.bytes
    return [
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array=0-{array - 1}" if array > 1 else "##SBATCH --array=0-3",
        "#SBATCH --ntasks=1",
        f"#SBATCH --gpus-per-task={gpus}" if gpus else "##SBATCH --gpus-per-task=1",
        f"#SBATCH --cpus-per-task={8 * max(1, gpus)}",
        # Beside what the job may take, the program itself needs some.
        f"#SBATCH --mem={memory // 2**20 + 2048}M" if memory else "##SBATCH --mem=64G",
        f"#SBATCH --time={time}",
        f"#SBATCH --signal=USR2@{_WARNING_S}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={name}-{'%A_%a' if array > 1 else '%j'}.log",
    ]


def _may_use_gpu(job: Job) -> bool:
    if isinstance(job.hardware, Machine):
        return job.hardware.device == "cuda"
    return job.hardware != "cpu"


def _program() -> str:
    """The program as a task finds it, in whatever environment it starts."""
    beside = Path(sys.executable).with_name("tightrun")
    return str(beside) if beside.exists() else shutil.which("tightrun") or "tightrun"
