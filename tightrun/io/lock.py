"""One writer: which runs work on an output, and whether one more may.

Each run that lives has a record among the output's bookkeeping. A run alone bears no other beside
it; those that share bear each other, and divide the shards among them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.lock_kinds import Held, Locks
from tightrun.io.manifest import utc_now
from tightrun.io.output_place import OutputError
from tightrun.io.owner import Owner

# Of runs that share an output one at a time has the lead: it may change what all of them rely on.
# A run that comes has not begun with the output, and one that leaves has done with it.
Stage = Literal["comes", "leads", "works", "leaves"]

_RECORDS = "run-*.json"
_TRIES = 100


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The record of a run.

    `claims` are the shards that nobody else may work on while it lives; they stay when they are
    done, as a network file system may show that late. `figures` are what it last said of itself,
    whatever that is.
    """

    run: int
    shared: bool
    owner: Owner
    since: str = field(default_factory=utc_now)
    claims: tuple[int, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    stage: Stage = "comes"


class LockedError(OutputError):
    """Another run that lives holds the output."""

    def __init__(self, target: Path | str, holder: LiveRun) -> None:
        self.holder = holder
        super().__init__(
            f"output.path: {target} is held by a run that is at work ({holder.owner}, since "
            f"{holder.since}); wait for its end with --if-locked wait, or name another output.path"
        )


class LostError(RuntimeError):
    """Another run took this one for dead, and has taken over what it held."""


class RunLock:
    """What a run holds while it lives. Thread-safe.

    `left` are the records of runs that died with the output in their hands.
    """

    def __init__(
        self,
        folder: Path,
        locks: Locks,
        disk: Disk,
        record: LiveRun,
        left: tuple[LiveRun, ...],
        made: list[Path],
    ) -> None:
        self.record = record
        self.left = left
        self._folder = folder
        self._locks = locks
        self._disk = disk
        self._made = made
        self._mine = threading.Lock()
        self._held: Held = locks.hold(self._path)
        self._write()

    @property
    def run(self) -> int:
        """The number of the run; none has it twice in an output."""
        return self.record.run

    def renumber(self, first: int) -> None:
        """Becomes a run of at least that number, and of none that another one has."""
        with self._mine, turn(self._folder, self._locks, self._disk):
            self.check()
            run = max([first, *(other.run + 1 for other in self._others())])
            if run <= self.run:
                return
            before, path = self._held, self._path
            self.record = replace(self.record, run=run)
            self._held = self._locks.hold(self._path)
            self._write()
            self._disk.remove(path)
            before.release(path)

    def renew(self, figures: Mapping[str, Any]) -> None:
        """Gives a sign of life. Raises LostError if others have taken us for dead."""
        with self._mine:
            self._change(figures=figures)

    def claim(self, choose: Callable[[list[LiveRun]], int | None]) -> int | None:
        """Adds the shard to the claims that `choose` finds, being told which other runs live.

        While it chooses, nobody else does. Raises LostError if others have taken us for dead.
        """
        with self._mine, turn(self._folder, self._locks, self._disk):
            self.check()
            shard = choose(self._others())
            if shard is not None:
                self._change(claims=(*self.record.claims, shard))
            return shard

    def lead(self) -> list[LiveRun] | None:
        """Takes the lead and returns the other runs that live; None while one of them has it.

        Raises LostError if others have taken us for dead.
        """
        with self._mine, turn(self._folder, self._locks, self._disk):
            self.check()
            others = self._others()
            if any(run.stage == "leads" for run in others):
                return None
            self._change(stage="leads")
            return others

    def follow(self, stage: Stage) -> None:
        """Gives up the lead."""
        with self._mine:
            self._change(stage=stage)

    def forget_dead(self) -> None:
        """Removes the records of runs that died while this one lived."""
        with self._mine, turn(self._folder, self._locks, self._disk):
            runs = live_runs(self._folder, self._locks)
            _forget([run for run, lives in runs if not lives], self._folder, self._disk)

    def check(self) -> None:
        """Raises LostError if others have taken us for dead."""
        there = _read(self._path)
        if there is None or there.owner != self.record.owner:
            raise LostError(
                f"{self._path} is gone: another run took this one for dead, as it gave no sign of "
                "life, and has taken over; nothing more is written"
            )

    def moved(self, folder: Path) -> None:
        """Says that the folder of the records has another name now."""
        self._folder = folder

    def release(self) -> None:
        """Gives up what is held; the record is gone afterwards, and so are folders made for it
        that nothing else has come into."""
        with self._mine, turn(self._folder, self._locks, self._disk):
            there = _read(self._path)
            if there is not None and there.owner == self.record.owner:
                self._disk.remove(self._path)
            self._held.release(self._path)
        for made in (self._folder, *self._made):
            self._disk.remove_folder(made)

    @property
    def _path(self) -> Path:
        return _record_path(self._folder, self.record.run)

    def _others(self) -> list[LiveRun]:
        """The other runs that live; to be asked within a turn."""
        runs = live_runs(self._folder, self._locks)
        return [run for run, lives in runs if lives and run.run != self.run]

    def _change(self, **what: Any) -> None:
        self.check()
        self.record = replace(self.record, **what)
        self._write()

    def _write(self) -> None:
        content = orjson.dumps(asdict(self.record), option=orjson.OPT_APPEND_NEWLINE)
        self._disk.write_whole(self._path, [content], OWNER_ONLY)


def take(
    folder: Path,
    locks: Locks,
    owner: Owner,
    *,
    target: Path,
    first_run: int = 1,
    shared: bool = False,
    disk: Disk | None = None,
) -> RunLock:
    """Takes the output `target` whose records are in `folder`, as a run of at least `first_run`.

    Raises LockedError if a run lives that does not bear this one.
    """
    disk = disk or Disk()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with turn(folder, locks, disk):
        left = []
        run = first_run
        for other, lives in live_runs(folder, locks):
            if not lives:
                left.append(other)
            elif not (shared and other.shared):
                raise LockedError(target, other)
            run = max(run, other.run + 1)
        lock = RunLock(folder, locks, disk, LiveRun(run, shared, owner), tuple(left), made)
        _forget(left, folder, disk)
        return lock


def live_runs(folder: Path, locks: Locks) -> list[tuple[LiveRun, bool]]:
    """The runs with a record, oldest first, and whether each of them lives."""
    found = []
    for path in sorted(folder.glob(_RECORDS)):
        record = _read(path)
        if record is not None:
            found.append((record, locks.lives(path, record.owner)))
    return found


@contextmanager
def turn(folder: Path, locks: Locks, disk: Disk, name: str = "turn") -> Iterator[None]:
    """Waits for the one turn of that name in `folder`, which is made if it is not there."""
    with ExitStack() as stack:
        _begin_turn(stack, folder / f"{name}.lock", locks, disk)
        yield


def _begin_turn(stack: ExitStack, path: Path, locks: Locks, disk: Disk) -> None:
    for _ in range(_TRIES):
        disk.make_folder(path.parent, 0o700)
        try:
            stack.enter_context(locks.turn(path))
            return
        except FileNotFoundError as error:
            # Whoever had the last turn removed the folder after we had found it.
            missing = error
    raise missing


def _forget(dead: Iterable[LiveRun], folder: Path, disk: Disk) -> None:
    for run in dead:
        path = _record_path(folder, run.run)
        disk.remove(path)
        disk.remove(path.with_suffix(".lock"))


def _record_path(folder: Path, run: int) -> Path:
    return folder / f"run-{run:04d}.json"


def _read(path: Path) -> LiveRun | None:
    """A record; None if it is gone, or so damaged that nobody can be its owner."""
    try:
        fields = orjson.loads(path.read_bytes())
        typed = {"owner": Owner(**fields["owner"]), "claims": tuple(fields["claims"])}
        return LiveRun(**{**fields, **typed})
    except (FileNotFoundError, orjson.JSONDecodeError, TypeError, KeyError):
        return None
