"""A process of `--workers` as the one that started it sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.run import RunOptions
from tightrun.cli.worker_places import WorkerPlace

COMMAND = (sys.executable, "-m", "tightrun.cli.worker")
# What no run says of itself: it was killed, or broke.
_BROKEN = (ExitCode.INTERNAL_ERROR, ExitCode.SECOND_INTERRUPT)

# Is told what a worker says to people, as the events of a JsonView.
Tell = Callable[[Mapping[str, Any]], None]
_SAID = ("fact", "note", "error", "prompt")


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to run."""

    job: Path
    overrides: Sequence[str]
    options: RunOptions

    def as_json(self, place: WorkerPlace) -> bytes:
        """The order as a process at that place takes it."""
        memory = f"limits.cpu_memory={place.host_bytes // 2**20}MiB"
        options = {**asdict(self.options), "share": True}
        # They do what is left; rows that failed are no part of it.
        del options["retry"]
        return orjson.dumps(
            {
                "job": str(self.job),
                "overrides": [*self.overrides, memory, "limits.time=none"],
                "options": options,
                "processors": place.processors,
            }
        )


class WorkerProcess:
    """Starts a worker and hears what it says; `progress` and `summary` are the latest of theirs."""

    def __init__(self, number: int, order: Order, place: WorkerPlace, tell: Tell) -> None:
        self.number = number
        self.progress: Mapping[str, Any] = {}
        self.summary: Mapping[str, Any] = {}
        self._tell = tell
        self._process = subprocess.Popen(
            [*COMMAND, order.as_json(place)],
            env={**os.environ, **place.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # So that what is typed at a terminal comes once, from us.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._listeners = [
            threading.Thread(target=self._hear, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._relay, args=(self._process.stderr,), daemon=True),
        ]
        for listener in self._listeners:
            listener.start()

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it is at work."""
        return self._process.poll()

    @property
    def died(self) -> bool:
        """Whether it ended without coming to an end."""
        code = self.code
        return code is not None and (code < 0 or code in _BROKEN)

    @property
    def end(self) -> str:
        """How it ended that died."""
        code = self.code or 0
        return f"was killed ({signal.Signals(-code).name})" if code < 0 else "broke off"

    def stop(self) -> None:
        """Asks it to keep what is finished and end; asking again does nothing."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    def join(self) -> None:
        """Returns when it has ended, and all that it said was heard."""
        self._process.wait()
        for listener in self._listeners:
            listener.join()

    def _hear(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                self._note(line)
                continue
            if event["event"] == "progress":
                self.progress = event
            elif event["event"] == "summary":
                self.summary = event
            elif event["event"] in _SAID:
                self._tell(event)

    def _relay(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._note(line)

    def _note(self, line: bytes) -> None:
        self._tell({"event": "note", "text": line.decode(errors="replace").rstrip()})
