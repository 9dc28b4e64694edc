"""events.jsonl: what happened when, one JSON object a line."""

from __future__ import annotations

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

    def event(self, name: str, **fields: Any) -> None:
        """Writes a line with the time in UTC, the name and the fields; events are rare."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "event": name, **fields}
        file = self._disk.append(self.path)
        try:
            file.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        finally:
            file.close()
