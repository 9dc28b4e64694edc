"""The sample job on an emulated card."""

from __future__ import annotations

from pathlib import Path

from sample_jobs.training.make_shards import DATES_FOLDER
from tightrun.io.job import Machine, load_job

SAMPLES = DATES_FOLDER.parent


def test_the_card_is_smaller_than_the_model() -> None:
    job = load_job(SAMPLES / "emulated.yaml")
    assert isinstance(job.hardware, Machine)
    assert job.hardware.gpu_memory is not None
    weights = Path(job.model.path) / "model.safetensors"
    assert job.hardware.gpu_memory < weights.stat().st_size


def test_it_asks_the_same_as_the_dates_job() -> None:
    emulated, dates = load_job(SAMPLES / "emulated.yaml"), load_job(SAMPLES / "dates.yaml")
    assert emulated.model == dates.model
    assert emulated.input.template == dates.input.template
    assert emulated.sampling == dates.sampling
    assert Path(emulated.input.path[0]).parent == Path(dates.input.path[0])
    assert emulated.output.path != dates.output.path
