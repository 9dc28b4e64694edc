"""The files of what is known of models: read, written, and thrown away when they are old."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from tightrun.io.durable import Disk
from tightrun.policies.known_json import known_from_json, known_to_json
from tightrun.policies.profile import Known

Notify = Callable[[str], None]

# Files are some kilobytes each. A machine changes in ways that its fingerprint does not show.
MOST_FILES = 200
MOST_AGE_S = 180 * 24 * 3600.0


def kept(path: Path, notify: Notify) -> Known | None:
    """What the file says; None if it is not there or too old, or not to be used, which is said."""
    try:
        if time.time() - path.stat().st_mtime > MOST_AGE_S:
            return None
        return known_from_json(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        notify(f"{path} is not used, and what it knew found again: {error}")
        return None


def keep(path: Path, known: Known, notify: Notify) -> None:
    """Keep it for later; a disk that takes no file is said, and no reason to stop."""
    disk = Disk()
    try:
        disk.make_folder(path.parent)
        disk.write_whole(path, [orjson.dumps(known_to_json(known))])
        _throw_away(path.parent, disk)
    except OSError as error:
        notify(f"what was found out about the model is not kept for later: {error}")


def _throw_away(folder: Path, disk: Disk) -> None:
    """Remove what is too old, and what is the oldest of too many."""
    written: list[tuple[float, Path]] = []
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # another run may be at it
            written.append((path.stat().st_mtime, path))
    written.sort(reverse=True)
    oldest = time.time() - MOST_AGE_S
    for at, (when, path) in enumerate(written):
        if at >= MOST_FILES or when < oldest:
            disk.remove(path)
