"""An error as it is kept in a file: where it came from, without words that may quote a row."""

from __future__ import annotations

import traceback

# Their words tell of files, devices and promises, not of what was being read or written.
_SAFE = (OSError, MemoryError, RuntimeError, AssertionError, ImportError)
LEFT_OUT = "(its words are left out, as they may quote a row; the screen has them)"


def kept_words(error: BaseException) -> str:
    """The kind of an error, with its words unless they may quote a row."""
    said = LEFT_OUT if _may_quote(error) else str(error)
    return f"{type(error).__qualname__}: {said}"


def _may_quote(error: BaseException) -> bool:
    """Whether the words may be of a row: its own, or those of what caused it."""
    if type(error).__module__.partition(".")[0] != "tightrun":
        return isinstance(error, RecursionError) or not isinstance(error, _SAFE)
    cause = error.__cause__
    return cause is not None and _may_quote(cause) and str(cause) in str(error)


def traceback_text(error: BaseException) -> str:
    """The frames of an error and of those that led to it, oldest first, each with its words."""
    parts, seen = [], set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        frames = "".join(traceback.format_tb(at.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{kept_words(at)}\n")
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\nwhich led to:\n\n".join(reversed(parts))
