"""An error of our own: said in a line, kept with its frames; nothing keeps the program alive."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import yaml

from tests.cli.fake_tightrun import ROOT
from tests.cli.jobs import events, job_of, prompts
from tests.cli.stores import OUT

# What breaks a run, in whose thread; threads that wait for nothing stay behind.
BREAKS = {
    "engine": "raise KeyError('a secret of the row')",
    "a thread that hangs": "hang(); raise KeyError('a secret of the row')",
    "writer": "import tightrun.io.outputs as o; o.OpenShard.append = broken",
}
PROGRAM = """
import sys, threading, time
from tests.cli.fake_engine import FakeEngine, factory
from tightrun.cli import perform
from tightrun.cli.main import main

def broken(*_args, **_more):
    raise KeyError("a secret of the row")

def hang():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def before(request):
    if request.row_index == 3:
        BREAK

perform.start_engine = factory(FakeEngine(before=before))
main(sys.argv[1:])
"""
MOST_S = 5.0


@pytest.mark.parametrize("where", BREAKS)
@pytest.mark.parametrize("url", ["", OUT])
def test_it_ends_with_1_and_a_line_within_seconds(tmp_path: Path, where: str, url: str) -> None:
    job = job_of(tmp_path, prompts(3000), **({"output": {"path": url}} if url else {}))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    program = PROGRAM.replace("BREAK", BREAKS[where])
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program, "job.yaml", "--log-format", "plain"],
        cwd=tmp_path,
        env={**state, "PATH": "", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ended_s = time.time()
    assert ended.returncode == 1, ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert said.startswith(("tightrun: KeyError", "tightrun: WriteError"))
    assert "events.jsonl" in said
    assert "Traceback" not in ended.stderr
    out = tmp_path / "out" if not url else next((tmp_path / "state").rglob("out"))
    error = [event for event in events(out) if event["event"] == "error"][-1]
    assert "secret" not in orjson.dumps(error).decode()
    assert "Traceback" in error["traceback"]
    # From when it was known to the end of the process.
    assert ended_s - _unix(error["time"]) < MOST_S


def _unix(time_text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(time_text).timestamp()
