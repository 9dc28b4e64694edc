"""The output of a run on its way to a URL, seen from the run; nothing where it stays on a disk."""

from __future__ import annotations

import time
from dataclasses import replace

from tightrun.cli import units
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.holding import Holding, IfLocked
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import Summary
from tightrun.cli.views import View
from tightrun.io.lock import LockedError
from tightrun.io.outputs import OutputPlace, OutputWriter, Resume
from tightrun.io.owner import BEAT_S, Here
from tightrun.io.publishing import Publishing

_POLL_S = 5.0


class Published:
    """Joins a run with the `Publishing` of its output; to be closed when the run has ended."""

    def __init__(self, place: OutputPlace, here: Here, view: View, stop: Stop) -> None:
        self._url, self._view, self._stop = place.url, view, stop
        self._publishing: Publishing | None = None
        self._writer: OutputWriter | None = None
        self._finished = False
        if place.url is not None:
            self._publishing = Publishing(place, here, note=view.note, failed=stop.fail)

    def begin(self, resume: Resume, if_locked: IfLocked, holding: Holding) -> bool:
        """Takes the output at the URL, with what lies there; whether it is not to be left alone.

        The local copy is in the hands of `holding`. Raises LockedError, OutputError, RemoteError,
        and StoppedError if the run was stopped meanwhile.
        """
        if self._publishing is None:
            return True
        said, renewed_s = False, time.monotonic()
        while True:
            try:
                with self._stop.nothing_to_save():
                    self._publishing.begin(resume)
                holding.renumber()
                return True
            except LockedError as locked:
                if if_locked == "fail":
                    raise
                if if_locked == "skip":
                    self._view.note(f"{self._url} is held by {locked.holder.owner}; nothing is run")
                    return False
                if not said:
                    self._view.note(f"waiting for {self._url}: {locked.holder.owner}")
                    said = True
            self._stop.event.wait(_POLL_S)
            self._stop.check()
            if time.monotonic() - renewed_s > BEAT_S:
                holding.renew()
                renewed_s = time.monotonic()

    def follow(self, writer: OutputWriter) -> None:
        """Sends what the writer has found, and says whose it is."""
        self._writer = writer
        if self._publishing is None:
            return
        if not writer.already_complete:
            self._publishing.announce()
        self._publishing.catch_up(writer.earlier.sealed)

    def sealed(self, shard: int) -> None:
        """Sends a shard that has just been written."""
        if self._publishing is not None:
            self._publishing.sealed(shard)

    def finish(self, summary: Summary) -> Summary:
        """Sends the rest, once; the summary, or that of a run that was stopped on the way.

        Raises RemoteError where the network fails for good; all is kept in the local copy.
        """
        if self._publishing is None or self._finished:
            return summary
        self._finished = True
        writer = self._writer
        complete = writer is not None and (writer.already_complete or writer.state == "complete")
        left = self._publishing.left
        detail = f"{units.count(left)} shards to go" if left else ""
        self._view.phase("publish", f"{self._url} {detail}".strip(), broke_off=not complete)
        if self._publishing.conclude(self._stop.event):
            return summary
        self._view.note(f"not all is at {self._url} yet; the same command sends the rest")
        if not complete:
            return summary
        assert self._stop.code is not None
        return replace(summary, exit_code=int(ExitCode.STOPPED), outcome=self._stop.reason)

    def close(self) -> None:
        """Gives the output back, whatever is left to send."""
        if self._publishing is not None:
            self._publishing.close()
