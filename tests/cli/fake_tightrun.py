"""The command with an engine that needs no model, as a process of its own.

`python -m tests.cli.fake_tightrun PACE ARGUMENTS...`: each row takes PACE seconds, or as long as
there is no file of that name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.fake_engine import FakeEngine, factory
from tightrun.cli import perform, worker_process
from tightrun.cli.main import main

ROOT = Path(__file__).parents[2]


def start(
    folder: Path, pace: float | str, *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    """Starts it in `folder`; what it says can be read from its standard error."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.fake_tightrun", str(pace), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(pace: str) -> None:
    """What a row takes."""
    if pace.replace(".", "").isdecimal():
        time.sleep(float(pace))
    else:
        while not Path(pace).exists():
            time.sleep(0.01)


def pretend(pace: str) -> None:
    """Lets the command have an engine of that pace."""
    perform.start_engine = factory(FakeEngine(before=lambda _request: wait(pace)))


if __name__ == "__main__":
    pretend(sys.argv[1])
    worker_process.COMMAND = (sys.executable, "-m", "tests.cli.fake_worker", sys.argv[1])
    main(sys.argv[2:])
