"""What was found out about a model is found once, and again when something has changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.tiny_llama import save_tiny_llama
from tests.policies.test_known_json import PROFILE, RATES
from tightrun.cli import known as known_module
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.known import kept, known_for, known_path
from tightrun.cli.learn_model import learn_model
from tightrun.cli.machine_rates import described_rates
from tightrun.io.job import Job, Machine, load_job
from tightrun.policies.profile import Known

CARD = {
    "device": "emulated",
    "gpu_memory": "800KiB",
    "cpu_memory": "2GiB",
    "h2d": "200MB/s",
    "d2h": "100MB/s",
    "disk_read": "50MB/s",
}
THERE = {
    "device": "cuda",
    "gpu_memory": "24GiB",
    "h2d": "20GB/s",
    "d2h": "20GB/s",
    "flops": {"64": "30TFLOP/s"},
    "device_bandwidth": "900GB/s",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Job]]:
    """The jobs that a process was asked about, which is not started here."""
    jobs: list[Job] = []

    def learn(job: Job, _notify: Any) -> Known:
        jobs.append(job)
        return Known(PROFILE, replace(RATES, memory_bytes_per_s=float(len(jobs))))

    monkeypatch.setattr(known_module, "learn_model", learn)
    return jobs  # type: ignore[return-value]


def job_of(folder: Path, **values: Any) -> Job:
    return load_job(
        {"model": str(folder), "input": {"path": "in.jsonl"}, "output": {"path": "out"}} | values
    )


def test_it_is_found_once(model: Path, asked: list[Job]) -> None:
    first, second = (known_for(job_of(model), str) for _ in range(2))
    assert len(asked) == 1
    assert first == second


def test_it_is_found_again_when_asked_to(model: Path, asked: list[Job]) -> None:
    known_for(job_of(model), str)
    again = known_for(job_of(model), str, refresh=True)
    assert len(asked) == 2
    assert known_for(job_of(model), str) == again


@pytest.mark.parametrize(
    "changed",
    [{"hardware": CARD}, {"hardware": CARD | {"h2d": "300MB/s"}}, {"hardware": "cpu"}],
    ids=["card", "faster card", "cpu"],
)
def test_every_machine_has_its_own(model: Path, changed: dict[str, Any]) -> None:
    other = {"hardware": CARD | {"h2d": "250MB/s"}}
    assert known_path(job_of(model, **changed)) != known_path(job_of(model, **other))


def test_another_dtype_has_its_own(model: Path) -> None:
    wide = {"model": {"path": str(model), "dtype": "float32"}}
    assert known_path(job_of(model)) != known_path(job_of(model, **wide))


def test_another_config_has_its_own(model: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    text = (model / "config.json").read_text()
    (tmp_path / "config.json").write_text(text)
    before = known_path(job)
    (tmp_path / "config.json").write_text(text.replace("512", "256"))
    assert known_path(job) != before


def test_what_else_the_job_says_changes_nothing(model: Path) -> None:
    other = job_of(model, sampling={"max_tokens": 3}, policy="static")
    assert known_path(job_of(model)) == known_path(other)


@pytest.mark.parametrize("text", [b"", b"{", b'{"version": 0}', b"[]"])
def test_a_file_that_is_torn_or_old_is_not_used_and_said(
    model: Path, asked: list[Job], text: bytes
) -> None:
    job, notes = job_of(model), list[str]()
    path = known_path(job)
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    known_for(job, notes.append)
    assert len(asked) == 1
    assert "is not used" in notes[0]
    assert kept(path, notes.append) is not None


def test_a_cache_that_takes_nothing_is_said_and_no_reason_to_stop(
    model: Path, asked: list[Job], tmp_path: Path
) -> None:
    (tmp_path / "tightrun").write_text("a file where the folder should be")
    notes: list[str] = []
    assert known_for(job_of(model), notes.append) is not None
    assert "not kept" in notes[-1]
    assert len(asked) == 1


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"holds no config\.json"):
        known_for(job_of(tmp_path), str)


def test_a_described_machine_has_the_rates_that_are_given() -> None:
    rates = described_rates(Machine.model_validate(THERE))
    assert rates.flops_per_s == ((64, 30e12),)
    assert (rates.h2d_bytes_per_s, rates.memory_bytes_per_s, rates.work) == (20e9, 900e9, None)


def test_a_machine_that_is_neither_here_nor_described_is_refused() -> None:
    machine = Machine.model_validate({"device": "cuda", "h2d": "20GB/s"})
    with pytest.raises(RefusedError, match=r"lacks flops, device_bandwidth, d2h. Usual are\n"):
        described_rates(machine)


@pytest.mark.slow
def test_the_process_that_learns_answers(model: Path) -> None:
    notes: list[str] = []
    known = learn_model(job_of(model, hardware=CARD), notes.append)
    assert known.profile.name == "LlamaForCausalLM"
    assert known.rates.h2d_bytes_per_s == 200e6
    assert known.rates.d2h_bytes_per_s == 100e6
    assert known.rates.disk_bytes_per_s == 50e6
    assert known.rates.best_flops_per_s > 1e9
    assert any("without its weights" in note for note in notes)


@pytest.mark.slow
def test_the_process_that_learns_says_what_is_refused(model: Path, tmp_path: Path) -> None:
    text = (model / "config.json").read_text().replace('"llama"', '"t5"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RefusedError, match="only decoders are run"):
        learn_model(job_of(tmp_path), str)


def test_looking_it_up_imports_no_torch(model: Path, asked: list[Job]) -> None:
    known_for(job_of(model), str)
    assert len(asked) == 1
    code = (
        "import sys; from tightrun.io.job import load_job; from tightrun.cli.known import *; "
        f"job = load_job({{'model': {str(model)!r}, 'input': {{'path': 'in.jsonl'}}, "
        "'output': {'path': 'out'}}); assert kept(known_path(job), print) is not None; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
