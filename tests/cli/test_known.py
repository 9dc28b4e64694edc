"""What was found out about a model is found once, and again when something has changed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.tiny_llama import save_tiny_llama
from tests.policies.test_known_json import PROFILE, RATES
from tightrun.cli import known as known_module
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.known import KnownHere, known_for
from tightrun.cli.known_files import MOST_AGE_S, MOST_FILES, keep, kept
from tightrun.cli.learn_model import learn_model
from tightrun.cli.machine_rates import described_rates
from tightrun.io.job import Job, Machine, load_job
from tightrun.policies.hardware import Rates
from tightrun.policies.profile import Known, Measured

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
def busy(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The share of the processors that others take: `busy[0]`."""
    share = [0.0]
    monkeypatch.setattr(known_module, "others_now", lambda: share[0])
    return share


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, busy: list[float]) -> list[Job]:
    """The jobs that a process was asked about, which is not started here."""
    jobs: list[Job] = []

    def learn(job: Job, _notify: Any, given: Rates | None = None) -> Known:
        jobs.append(job)
        if given is not None:
            return Known(PROFILE, given)
        rates = replace(RATES, memory_bytes_per_s=float(len(jobs)))
        return Known(PROFILE, rates, Measured("2026-11-26T08:00:00+00:00", 3.0, busy[0]))

    monkeypatch.setattr(known_module, "learn_model", learn)
    return jobs


def job_of(folder: Path, **values: Any) -> Job:
    return load_job(
        {"model": str(folder), "input": {"path": "in.jsonl"}, "output": {"path": "out"}} | values
    )


def place(job: Job) -> Path:
    """Where it is kept for a run that streams."""
    return KnownHere(job, str).streamed


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
    assert place(job_of(model, **changed)) != place(job_of(model, **other))


def test_another_dtype_has_its_own(model: Path) -> None:
    wide = {"model": {"path": str(model), "dtype": "float32"}}
    assert place(job_of(model)) != place(job_of(model, **wide))


def test_another_config_has_its_own(model: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    text = (model / "config.json").read_text()
    (tmp_path / "config.json").write_text(text)
    before = place(job)
    (tmp_path / "config.json").write_text(text.replace("512", "256"))
    assert place(job) != before


def test_what_else_the_job_says_changes_nothing(model: Path) -> None:
    other = job_of(model, sampling={"max_tokens": 3}, policy="static")
    assert place(job_of(model)) == place(other)


@pytest.mark.parametrize("text", [b"", b"{", b'{"version": 0}', b"[]"])
def test_a_file_that_is_torn_or_old_is_not_used_and_said(
    model: Path, asked: list[Job], text: bytes
) -> None:
    job, notes = job_of(model), list[str]()
    path = KnownHere(job, str).resident
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


def test_what_was_measured_beside_other_work_is_said(
    model: Path, asked: list[Job], busy: list[float]
) -> None:
    busy[0] = 0.4
    for _ in range(2):
        notes: list[str] = []
        known_for(job_of(model), notes.append)
        assert "beside other work, which took 40.0 %" in notes[-1]
    assert len(asked) == 1


def test_what_was_measured_beside_other_work_is_measured_again_when_the_machine_is_idle(
    model: Path, asked: list[Job], busy: list[float]
) -> None:
    busy[0] = 0.4
    known_for(job_of(model), str)
    busy[0] = 0.0
    notes: list[str] = []
    again = known_for(job_of(model), notes.append)
    assert len(asked) == 2
    assert (again.measured and again.measured.others_share) == 0.0
    assert ["is idle now" in note for note in notes] == [True]
    assert known_for(job_of(model), str) == again
    assert len(asked) == 2


def test_the_least_disturbed_of_three_measurements_stays(
    model: Path, asked: list[Job], busy: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_module, "others_now", lambda: 0.0)
    for share in (0.4, 0.2, 0.3, 0.1):
        busy[0] = share
        known = known_for(job_of(model), str)
    assert len(asked) == 3
    assert known.measured is not None
    assert (known.measured.others_share, known.measured.tries) == (0.2, 3)


@pytest.mark.usefixtures("asked")
def test_measuring_anew_forgets_what_was_before(model: Path, busy: list[float]) -> None:
    for share in (0.2, 0.3):
        busy[0] = share
        known = known_for(job_of(model), str, refresh=True)
    assert known.measured == Measured("2026-11-26T08:00:00+00:00", 3.0, 0.3)


@pytest.mark.usefixtures("asked")
def test_a_run_measures_again_when_the_machine_is_idle_and_keeps_the_better(
    model: Path, busy: list[float]
) -> None:
    busy[0] = 0.4
    before = known_for(job_of(model), str)
    assert KnownHere(job_of(model), str).begin_with() == before
    busy[0] = 0.0
    here = KnownHere(job_of(model), str)
    assert here.begin_with() is None
    found = replace(before, measured=Measured("2026-11-26T09:00:00+00:00", 3.0, 0.01))
    here.keep(found)
    kept_now = KnownHere(job_of(model), str).begin_with()
    assert kept_now is not None
    assert kept_now.measured == replace(found.measured, tries=2)  # type: ignore[type-var]


def test_weights_that_stay_and_weights_that_are_streamed_are_kept_apart(
    model: Path, asked: list[Job]
) -> None:
    roomy, small = (job_of(model, limits={"cpu_memory": m}) for m in ("2GiB", "400MiB"))
    found = [known_for(job, str) for job in (roomy, small, roomy, small)]
    assert len(asked) == 2
    assert found[:2] == found[2:]


def test_of_a_described_machine_the_model_alone_is_found_out_about(
    model: Path, asked: list[Job]
) -> None:
    job = job_of(model, hardware={"device": "cuda"})
    slow, fast = (replace(RATES, h2d_bytes_per_s=x) for x in (1e9, 2e9))
    assert [known_for(job, str, given=rates).rates for rates in (slow, fast)] == [slow, fast]
    assert len(asked) == 1


def test_old_files_and_the_oldest_of_too_many_are_thrown_away(tmp_path: Path) -> None:
    known, now = Known(PROFILE, RATES), time.time()
    for number in range(MOST_FILES + 5):
        keep(tmp_path / f"{number}.json", known, str)
        os.utime(tmp_path / f"{number}.json", (now, now - 1000 + number))
    os.utime(tmp_path / "100.json", (now, now - MOST_AGE_S - 1))
    assert kept(tmp_path / "100.json", str) is None
    keep(tmp_path / "last.json", known, str)
    left = {path.stem for path in tmp_path.glob("*.json")}
    assert len(left) == MOST_FILES
    assert "last" in left
    assert not {"0", "4", "100"} & left


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
        "import sys; from tightrun.io.job import load_job; "
        "from tightrun.cli.known import KnownHere; "
        f"job = load_job({{'model': {str(model)!r}, 'input': {{'path': 'in.jsonl'}}, "
        "'output': {'path': 'out'}}); assert KnownHere(job, print).find() is not None; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
