"""events.jsonl: what happened when, one JSON object a line."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tightrun.io.durable import Disk


class EventLog:
    """Appends to `folder/events.jsonl`. Thread-safe: a line is one write at the file's end."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.path = folder / "events.jsonl"
        self._disk = disk or Disk()
        self._lock = threading.Lock()
        self._is_first = True

    def event(self, name: str, **fields: Any) -> None:
        """Writes a line with the time in UTC, the name and the fields; events are rare."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "event": name, **fields}
        text = orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            file = self._disk.append(self.path)
            try:
                # A crash of an earlier run may have cut its last line short.
                if self._is_first and file.size and file.read_at(file.size - 1, 1) != b"\n":
                    text = b"\n" + text
                file.write(text)
                self._is_first = False
            finally:
                file.close()
