"""`tightrun init`: a first job file."""

from __future__ import annotations

import sys
from pathlib import Path

from tightrun.io.durable import Disk
from tightrun.io.job import starter_text
from tightrun.io.outputs import OutputError


def write_starter(path: Path) -> None:
    """Writes the starter to `path`, or to standard output for "-".

    Raises OutputError rather than replace a file.
    """
    if str(path) == "-":
        sys.stdout.write(starter_text())
        return
    if path.exists():
        raise OutputError(f"{path} is there already; name another file")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder; make it first or name another file")
    Disk().write_whole(path, [starter_text().encode()])
    print(f"Wrote {path}. Fill in model and input, then: tightrun validate {path}")
