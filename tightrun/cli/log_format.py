"""How progress is written."""

from __future__ import annotations

from enum import StrEnum


class LogFormat(StrEnum):
    """`auto` is rich on a terminal and plain elsewhere."""

    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    JSON = "json"
