"""`tightrun doctor JOB.yaml`: the rates of this machine for a model, and how they were found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.jobs import job_of, prompts
from tests.policies.test_known_json import PROFILE, RATES
from tightrun.cli.main import main
from tightrun.policies.profile import Known, Measured

QUIET = Measured("2026-11-26T08:00:00+00:00", 3.0, 0.01)
BUSY = Measured("2026-11-26T08:00:00+00:00", 3.0, 0.4)


class Doctor:
    """Types `tightrun doctor` over a job; `refreshed` are the answers to whether to refresh."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.known = Known(PROFILE, RATES, QUIET)
        self.refreshed: list[bool] = []
        self._folder, self._capsys = folder, capsys

    def __call__(self, *arguments: str) -> str:
        """What it printed to standard output."""
        path = self._folder / "job.yaml"
        path.write_text(yaml.safe_dump(job_of(self._folder, prompts(1))))
        with pytest.raises(SystemExit) as ended:
            main(["doctor", str(path), *arguments])
        assert not ended.value.code
        return self._capsys.readouterr().out

    def known_for(self, _job: Any, _notify: Any, *, refresh: bool) -> Known:
        self.refreshed.append(refresh)
        return self.known


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    made = Doctor(tmp_path, capsys)
    monkeypatch.setattr("tightrun.cli.doctor_job.known_for", made.known_for)
    return made


def test_every_rate_has_a_line(doctor: Doctor) -> None:
    lines = [" ".join(line.split()) for line in doctor().splitlines()]
    for line in (
        "bytes to the device 1.00 GB/s",
        "both at once 2.00 GB/s",
        "1 1.00 GFLOP/s decode",
        "64 30 GFLOP/s decode",
        "1 1.0 ms 100 us decode",
        "attention 10 us for each call, and",
        "decode 10.0 GB/s of KV",
        "prefill 200 GFLOP/s",
        "beside 200 us for each pass, 100 us for each batch",
    ):
        assert line in lines


def test_what_calls_contexts_and_reading_cost_has_a_line_where_it_was_seen(
    doctor: Doctor,
) -> None:
    assert RATES.work is not None
    for seconds, takes in ((0.0, 0.0), (1.2e-3, 0.21)):
        work = replace(RATES.work, attention_s=seconds / 20, context_s=seconds, disk_takes=takes)
        doctor.known = Known(PROFILE, replace(RATES, work=work), QUIET)
        text = " ".join(doctor().split())
        assert ("for each call" in text) == bool(seconds)
        assert ("of a batch with context off" in text) == bool(seconds)
        assert ("reading the disk takes" in text) == bool(takes)
    assert "attention 60 us for each call, and" in text
    assert "1.2 ms for each layer of a batch with context off the device" in text
    assert "reading the disk takes 21.0 % of computing meanwhile" in text


def test_it_says_when_and_how_it_was_measured(doctor: Doctor) -> None:
    text = doctor()
    assert "2026-11-26 08:00 UTC, " in text
    assert "ago, in 3.0 s" in text
    assert "others took 1.0 % of the processors meanwhile\n" in text


def test_it_warns_of_a_measurement_beside_other_work(doctor: Doctor) -> None:
    doctor.known = Known(PROFILE, RATES, BUSY)
    text = doctor()
    assert "others took 40.0 % of the processors meanwhile: expect these to be too low" in text


def test_given_rates_were_not_measured(doctor: Doctor) -> None:
    doctor.known = Known(PROFILE, RATES)
    assert "these are the rates that are given" in doctor()


def test_it_is_measured_anew_when_asked(doctor: Doctor) -> None:
    doctor()
    doctor("--refresh")
    assert doctor.refreshed == [False, True]


def test_programs_get_all_of_it(doctor: Doctor) -> None:
    found = json.loads(doctor("--json"))
    assert found["measured"]["others_share"] == 0.01
    assert found["rates"]["work"]["pass_s"] == 2e-4
    assert found["model"]["layers"] == 2
    assert found["hardware"]["cpu_memory"]["bytes"] > 0


def test_refreshing_wants_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--refresh"])
    assert ended.value.code == 2
    assert "only with a JOB.yaml" in capsys.readouterr().err
