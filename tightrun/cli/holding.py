"""The output of a job held for one run, from before anything in it is changed until the end.

Runs that share it hold it together, and come one after the other.
"""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import Literal

from tightrun.cli import units
from tightrun.cli.output_at import name_of
from tightrun.cli.stopping import Stop
from tightrun.cli.summary import short_path
from tightrun.cli.views import View
from tightrun.io.durable import Disk
from tightrun.io.earlier_run import next_run, refuse_unsuitable
from tightrun.io.lock import LockedError, RunLock, take
from tightrun.io.lock_kinds import Locks, locks_for
from tightrun.io.outputs import OutputPlace, Resume, UnwritableError, claim
from tightrun.io.owner import BEAT_S, Here
from tightrun.io.sharing import Sharing, lead_of
from tightrun.runtime.mounts import mount_of, read_mounts

IfLocked = Literal["fail", "skip", "wait"]

_POLL_S = 2.0
_SAY_S = 30.0
_LEAVING_POLL_S = 0.1


class Holding:
    """Takes the output at `place` for this process, alone or `shared` with others that share it; to
    be closed when nothing more is written. `sharing` is its part, where it is shared."""

    def __init__(
        self, place: OutputPlace, here: Here, view: View, stop: Stop, *, shared: bool = False
    ) -> None:
        self._place, self._here, self._view, self._stop = place, here, view, stop
        self._shared = shared
        self._locks = locks_at(place.live, here)
        self._lock: RunLock | None = None
        self.sharing: Sharing | None = None

    @property
    def run(self) -> int:
        """The number of this run."""
        return self._held.run

    @property
    def died(self) -> bool:
        """Whether a run died with the output in its hands."""
        return bool(self._held.left)

    def take(self, resume: Resume, if_locked: IfLocked) -> bool:
        """Whether the output is held now, and not to be left alone.

        Raises LockedError if another run holds it and `if_locked` is "fail", OutputError for what
        cannot be gone on with, StoppedError if the run was stopped while it waited.
        """
        refuse_unsuitable(self._place, resume)
        self._lock = self._wait(if_locked)
        if self._lock is not None and self._shared:
            self.sharing = Sharing(self._lock, joins=self._come(self._lock))
        return self._lock is not None

    def make_way(self, resume: Resume) -> None:
        """Judges what lies at the place, or moves it aside; says so, and what died there."""
        live, left = self._place.live, self._held.left
        if self.sharing is not None and self.sharing.joins:
            self._view.fact(f"{name_of(self._place)} is shared with runs at work")
            return
        for old, new in claim(self._place, resume):
            self._view.note(f"{short_path(old)} was moved to {short_path(new)}")
            if live.is_relative_to(old):
                self._follow(new / live.relative_to(old))
        for dead in left:
            self._view.note(f"the run before this one died ({dead.owner}); it is taken over from")

    def renumber(self) -> None:
        """Takes a number that none of the runs has which are known by now."""
        self._held.renumber(next_run(self._place))

    def renew(self) -> None:
        """Gives a sign of life; raises LostError when it comes too late."""
        self._held.renew({})

    def close(self) -> None:
        """Gives the output back.

        Where the disk refuses that, the next run takes this one for dead; how this one ended is
        more than that, so it is said and not raised.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            lock.release()
        except OSError as error:
            self._view.note(f"{name_of(self._place)} is not given back: {error}")

    @property
    def _held(self) -> RunLock:
        assert self._lock is not None, "the output was not taken"
        return self._lock

    def _wait(self, if_locked: IfLocked) -> RunLock | None:
        began_s = time.monotonic()
        say_s = began_s
        while True:
            try:
                return self._take()
            except LockedError as locked:
                if if_locked == "fail":
                    raise
                target, holder = name_of(self._place), locked.holder
                if if_locked == "skip":
                    self._view.note(f"{target} is held by {holder.owner}; nothing is run")
                    return None
                if time.monotonic() >= say_s:
                    waited = units.duration(time.monotonic() - began_s)
                    self._view.note(f"waiting for {target}: {holder.owner} ({waited} so far)")
                    say_s += _SAY_S
            self._stop.event.wait(_POLL_S)
            self._stop.check()

    def _come(self, lock: RunLock) -> bool:
        """Waits until this run may begin with the output; whether others are at work on it."""
        beat_s = time.monotonic() + BEAT_S
        while True:
            others = lead_of(lock, _POLL_S)
            if others is not None and any(run.stage == "works" for run in others):
                return True
            if others is not None:
                if not any(run.stage == "leaves" for run in others):
                    return False
                # What they still write is not to be taken for what a dead run left.
                lock.follow("comes")
                self._stop.event.wait(_LEAVING_POLL_S)
            self._stop.check()
            if time.monotonic() >= beat_s:
                self.renew()
                beat_s = time.monotonic() + BEAT_S

    def _take(self) -> RunLock:
        place = self._place
        try:
            return take(
                place.live,
                self._locks,
                self._here.me,
                target=place.target,
                first_run=next_run(place),
                shared=self._shared,
            )
        except OSError as error:
            raise UnwritableError(place.target, error) from error

    def _follow(self, moved: Path) -> None:
        """Takes the place that is free now in exchange for what was moved away."""
        before, self._lock = self._held, None
        before.moved(moved)
        try:
            self._lock = self._take()
        finally:
            before.release()


def locks_at(folder: Path, here: Here) -> Locks:
    """The locks that hold on the file system which `folder` is on, or will be."""
    mount = mount_of(PurePosixPath(folder.resolve()), read_mounts(here.root))
    return locks_for(mount.kind if mount else None, here, Disk())
