"""The process that runs are forked from: what takes seconds to import is imported once.

It reads an order a line from standard input, and answers each with two lines: the process id of
the run, and once that has ended how. A run is the whole command line in a process of its own, which
ends as Python ends, so that a thread that does not come to its end is seen.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

# What the command line would import when it needs it.
import tightrun.cli.perform
import tightrun.io.outputs
import tightrun.runtime.engine
from tests.faults.misfortune import arm
from tightrun.cli.main import main


def serve() -> None:
    """Answers orders until there are no more; the child returns from here, too."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            run(order)
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def run(order: dict[str, Any]) -> None:
    """The command line in this process, with the misfortune that is ordered; ends by SystemExit."""
    for stream, fd in (("stdout", 1), ("stderr", 2)):
        file = os.open(Path(order["told"]) / stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, fd)
        os.close(file)
    os.environ.update(order["environment"])
    if order["sync_s"] is not None:
        tightrun.io.outputs._SYNC_S = order["sync_s"]
    if order["misfortune"]:
        arm(order["misfortune"])
    main(order["arguments"])


if __name__ == "__main__":
    # What is here before a run began is none of its garbage.
    gc.collect()
    gc.freeze()
    serve()
