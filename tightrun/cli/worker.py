"""One of several processes that `--workers` started: it shares the output, and tells in JSON lines.

It ends when the process that started it does, or says so: by closing its standard input.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

from tightrun.cli.perform import perform_shown
from tightrun.cli.quiet_libraries import quiet_libraries
from tightrun.cli.run import RunOptions
from tightrun.cli.stopping import Stop
from tightrun.cli.view_json import JsonView
from tightrun.io.quantities import Tolerance

TELL_S = 1.0


def work(order: dict[str, Any]) -> int:
    """Runs the job of an order, as `Order.as_json` makes it, and returns the exit code."""
    quiet_libraries(os.environ)
    os.sched_setaffinity(0, order["processors"])
    stop = Stop()
    threading.Thread(target=_end_with_input, args=(stop,), daemon=True).start()
    view = JsonView(sys.stdout)
    view.interval_s = TELL_S
    options = dict(order["options"])
    if options["allow_failures"] is not None:
        options["allow_failures"] = Tolerance(**options["allow_failures"])
    flags = RunOptions(**options)
    return perform_shown(Path(order["job"]), order["overrides"], flags, view, stop)


def _end_with_input(stop: Stop) -> None:
    # Not through sys.stdin, whose lock this thread would still have when the process ends.
    while os.read(0, 1):
        pass
    # Slurm signals every process of a step: a second signal would end this one at once.
    if not stop.event.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(work(orjson.loads(sys.argv[1])))
