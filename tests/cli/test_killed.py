"""A real run that is killed without a word, and started again, comes to what one run comes to."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import tightrun
from tests.cli.jobs import read, write_rows
from tests.cli.tiny_llama import save_tiny_llama
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.report import latest_summary
from tightrun.cli.summary import Summary
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputPlace
from tightrun.io.reports import read_runs
from tightrun.io.token_journal import read_tokens

ROWS = 48
# The command, with journals that are on the disk all the time.
COMMAND = (
    "import tightrun.io.outputs as outputs; outputs._SYNC_S = 0.1; "
    "from tightrun.cli.main import main; main()"
)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 120, "stop": ["zz"], "logprobs": 1},
    "sampled": {"max_tokens": 120, "temperature": 0.9, "n": 2, "ignore_eos": True},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


class Whole:
    """What jobs come to that nobody kills; each is run once."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._folder, self._model = folder, model
        self._found: dict[str, tuple[Summary, list[dict[str, Any]]]] = {}

    def of(self, way: str) -> tuple[Summary, list[dict[str, Any]]]:
        if way not in self._found:
            job = job_file(self._folder, self._model, way, **WAYS[way])
            self._found[way] = (tightrun.run(job, quiet=True), told(self._folder / way))
        return self._found[way]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"), model)


def job_file(folder: Path, model: Path, out: str, **sampling: Any) -> Path:
    rows = [{"id": f"r{n}", "prompt": "abc " * (n % 9) + f"row {n}"} for n in range(ROWS)]
    job = {
        "model": {"path": str(model), "dtype": "float32"},
        "input": {"path": str(write_rows(folder / "in.jsonl", rows))},
        "sampling": sampling,
        "output": {"path": str(folder / out), "shard_rows": 16},
        "limits": {"cpu_memory": "2GiB"},
        "policy": {"name": "adaptive", "batch_size": 6},
    }
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def start(job: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(job), "--log-format", "plain", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def killed_on_its_way(job: Path, chance: random.Random) -> bool:
    """Whether a run was killed before its end, at a moment after it began with a row."""
    journal = OutputPlace.of(job.with_suffix("")).journal
    old = set(journal.glob("tokens-*"))
    first: dict[Path, int] = {}
    run = start(job)
    wait_s = chance.uniform(0.0, 1.0)
    while run.poll() is None:
        # A run begins a file of its own with what is begun, long before it draws a token.
        for path in set(journal.glob("tokens-*")) - old:
            first.setdefault(path, path.stat().st_size)
        if any(path.exists() and path.stat().st_size > size for path, size in first.items()):
            time.sleep(wait_s)
            run.kill()
            break
        time.sleep(0.01)
    run.communicate()
    return run.returncode < 0


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_texts(tmp_path: Path, model: Path, whole: Whole) -> None:
    one, rows = whole.of("greedy")
    killed = job_file(tmp_path, model, "killed", **WAYS["greedy"])
    assert killed_on_its_way(killed, random.Random(0)), "the run ended too soon to be killed"
    begun, _ = read_tokens(tmp_path / "killed" / "_tightrun" / "journal", _fingerprint(tmp_path))
    assert begun, "no row was on its way when the run was killed"
    last = tightrun.run(killed, quiet=True)
    assert last.exit_code == one.exit_code == ExitCode.FINISHED
    assert told(tmp_path / "killed") == rows
    assert not list((tmp_path / "killed").rglob(".*.tmp"))
    assert [record.run for record in read_runs(tmp_path / "killed")] == [2]
    assert last.output_tokens < one.output_tokens


@pytest.mark.slow
def test_of_two_that_share_one_is_killed_and_the_texts_are_the_same(
    tmp_path: Path, model: Path, whole: Whole
) -> None:
    one, rows = whole.of("sampled")
    shared = job_file(tmp_path, model, "shared", **WAYS["sampled"])
    journal = tmp_path / "shared" / "_tightrun" / "journal"
    both = [start(shared, "--share") for _ in range(2)]
    begun: set[str] = set()
    while len(begun) < 2:
        assert all(run.poll() is None for run in both)
        begun = {path.name[:11] for path in journal.glob("tokens-*") if path.stat().st_size > 500}
        time.sleep(0.01)
    both[0].kill()
    both[0].communicate()
    said = both[1].communicate()[1]
    assert both[1].returncode == one.exit_code == ExitCode.FINISHED, said
    assert told(tmp_path / "shared") == rows
    last = latest_summary(OutputPlace.of(tmp_path / "shared"))
    assert last.output_tokens < one.output_tokens


def told(out: Path) -> list[dict[str, Any]]:
    """The rows of an output; of log-probabilities, as much as rounding leaves the same."""
    rows: list[dict[str, Any]] = read(out).to_pylist()
    for row in rows:
        for token in row.get("logprobs") or ():
            del token["top"]
            token["logprob"] = pytest.approx(token["logprob"], abs=1e-4)
    return rows


def _fingerprint(folder: Path) -> str:
    manifest = read_manifest(folder / "killed" / "_tightrun" / "manifest.json")
    assert manifest is not None
    return manifest.fingerprint
