"""The batch script that is printed for a job."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.jobs import job_of, prompts
from tests.sample_jobs.test_slurm import run_script
from tightrun.cli.slurm import batch_script
from tightrun.io.job import JobError
from tightrun.io.outputs import OutputError


def script(folder: Path, *overrides: str, name: str = "job.yaml", **options: Any) -> list[str]:
    path = folder / name
    path.write_text(yaml.safe_dump(job_of(folder, prompts(1))))
    asked = {"array": 1, "gpus": None, "time": "24:00:00", **options}
    return batch_script(path, overrides, **asked).splitlines()


def test_a_task_is_warned_in_time_and_may_be_requeued(tmp_path: Path) -> None:
    lines = script(tmp_path, time="02:00:00")
    for line in ("--signal=USR2@180", "--requeue", "--time=02:00:00", "--ntasks=1"):
        assert f"#SBATCH {line}" in lines


def test_the_directives_stand_before_the_first_command(tmp_path: Path) -> None:
    """sbatch reads no further."""
    commands = [n for n, line in enumerate(script(tmp_path)) if line and line[0] != "#"]
    directives = [n for n, line in enumerate(script(tmp_path)) if line.startswith("#SBATCH")]
    assert max(directives) < min(commands)


def test_an_array_has_so_many_tasks_that_share(tmp_path: Path) -> None:
    lines = script(tmp_path, array=4)
    assert "#SBATCH --array=0-3" in lines
    assert next(line for line in lines if line.startswith("srun")).endswith("job.yaml --share")


def test_an_output_at_a_url_has_one_task(tmp_path: Path) -> None:
    lines = script(tmp_path, "output.path=s3://bucket/out")
    assert "--share" not in next(line for line in lines if line.startswith("srun"))
    with pytest.raises(OutputError, match="share an output through a folder"):
        script(tmp_path, "output.path=s3://bucket/out", array=2)


@pytest.mark.parametrize(
    ("options", "gpus", "workers"),
    [({}, "#SBATCH --gpus-per-task=1", False), ({"gpus": 4}, "#SBATCH --gpus-per-task=4", True)],
)
def test_several_gpus_have_a_process_each(
    tmp_path: Path, options: dict[str, int], gpus: str, workers: bool
) -> None:
    text = "\n".join(script(tmp_path, **options))
    assert gpus in text
    assert ("--workers auto" in text) == workers


def test_a_job_for_the_cpu_asks_for_no_gpu(tmp_path: Path) -> None:
    assert "##SBATCH --gpus-per-task=1" in script(tmp_path, "hardware=cpu")


def test_memory_is_asked_for_where_the_job_says_how_much(tmp_path: Path) -> None:
    assert "#SBATCH --mem=34816M" in script(tmp_path, "limits.cpu_memory=32GiB")


def test_it_runs_as_it_is_printed_and_is_queued_again_when_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "printed.sbatch"
    lines = script(tmp_path, "sampling.stop=[a b]", name="my job.yaml")
    path.write_text("\n".join(lines))
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    code, calls = run_script(tmp_path, "exit 75", script=path)
    assert code == 75
    assert calls[0].endswith(f"{tmp_path}/my job.yaml --share --set sampling.stop=[a b]")
    assert calls[1] == "scontrol requeue 42"


def test_a_job_file_with_a_mistake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="did you mean"):
        script(tmp_path, "sampling.max_token=3")
