"""An output on S3 itself, as moto's server has it: skipped where moto and s3fs are not installed
(`pip install 'moto[server]' s3fs`)."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.cli.fake_engine import FakeEngine
from tests.cli.stores import Runner, names, rows, runner
from tests.cli.test_output_at_url import EXPECTED, ROWS, job_at, stopping_at
from tightrun.cli.status import status_of
from tightrun.cli.stopping import Stop
from tightrun.io.outputs import OutputError

__all__ = ["runner"]

moto_server = pytest.importorskip("moto.server", reason="moto's server is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

OUT = "s3://bucket/out"


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server with one empty bucket."""
    server = moto_server.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    # The servers of a process share what they hold.
    request = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(request).close()
    fsspec.filesystem("s3").mkdir("bucket")
    yield
    server.stop()


def test_all_of_it_gets_there_and_another_machine_knows(runner: Runner, tmp_path: Path) -> None:
    assert runner.run("here", job_at(tmp_path, OUT)).exit_code == 0
    assert rows(OUT) == EXPECTED
    assert not [name for name in names(OUT) if "journal" in name or "owner" in name]
    engine = FakeEngine()
    assert runner.run("there", job_at(tmp_path, OUT), engine).done == ROWS
    assert not engine.seen


def test_a_stopped_job_goes_on_on_another_machine(runner: Runner, tmp_path: Path) -> None:
    stop = Stop()
    job = job_at(tmp_path, OUT)
    done = runner.run("here", job, stopping_at(14, stop), stop=stop).done
    engine = FakeEngine()
    assert runner.run("there", job, engine).done == ROWS
    assert len(engine.seen) == ROWS - done
    assert rows(OUT) == EXPECTED
    runner.use("elsewhere")
    assert status_of(OUT).state == "complete"


def test_new_moves_what_was_there_aside(runner: Runner, tmp_path: Path) -> None:
    runner.run("here", job_at(tmp_path, OUT))
    runner.run("here", job_at(tmp_path, OUT), resume="new")
    moved = [path for path in fsspec.filesystem("s3").ls("bucket") if path != "bucket/out"]
    assert rows(f"s3://{moved[0]}") == rows(OUT) == EXPECTED


def test_a_bucket_that_is_not_there_is_told(runner: Runner, tmp_path: Path) -> None:
    engine = FakeEngine()
    with pytest.raises((OutputError, OSError), match="bucket"):
        runner.run("here", job_at(tmp_path, "s3://nobody-s-bucket/out"), engine)
    assert not engine.seen
