"""One writer for a store: a small file there says who is at work, with a sign of life in it.

A store has no locks. Two runs that come within the same moment may not see each other; then the
one whose file is there afterwards goes on. Where a small file is dear (the hub: a commit), it is
written with each shard only, and a run that is silent counts as dead after the same time.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import orjson

from tightrun.io.lock import LiveRun, LockedError, LostError
from tightrun.io.manifest import utc_now
from tightrun.io.owner import Here, Owner
from tightrun.io.store import Sending, Store


class StoreOwner:
    """This process as the one writer of an output in a store; `name` is that of the file."""

    def __init__(self, store: Store, name: str, here: Here) -> None:
        self._store, self._name, self._here = store, name, here
        self._since = utc_now()

    def take(self) -> None:
        """Becomes the owner. Raises LockedError if another one lives."""
        self._refuse(self._store.read(self._name))
        self._write()
        self._refuse(self._store.read(self._name))

    def renew(self) -> None:
        """Gives a sign of life. Raises LostError if another one has taken over."""
        self.check()
        self._write()

    def check(self) -> None:
        """Raises LostError if another one has taken over."""
        owner, _, _ = _parsed(self._store.read(self._name))
        if owner != self._here.me:
            raise LostError(
                f"{self._store}: {owner or 'somebody'} has taken over the output, as this run gave "
                "no sign of life; nothing more is written"
            )

    def sign(self) -> Sending:
        """The file with a sign of life."""
        said = {"owner": asdict(self._here.me), "since": self._since, "beat": time.time()}
        return Sending(orjson.dumps(said), self._name)

    def leave(self) -> None:
        """Says that nobody is at work, unless another one has taken over."""
        owner, _, _ = _parsed(self._store.read(self._name))
        if owner == self._here.me:
            self._store.remove([self._name])

    def _refuse(self, told: bytes | None) -> None:
        owner, since, beat = _parsed(told)
        if owner is None or owner == self._here.me:
            return
        if time.time() - beat < self._here.patience_s(owner):
            raise LockedError(self._store.url, LiveRun(0, False, owner, since))

    def _write(self) -> None:
        self._store.put([self.sign()])


def owner_of(told: bytes | None, here: Here) -> Owner | None:
    """Who is at work and lives, as far as it can be told from `here`."""
    owner, _, beat = _parsed(told)
    lives = owner is not None and time.time() - beat < here.patience_s(owner)
    return owner if lives else None


def _parsed(told: bytes | None) -> tuple[Owner | None, str, float]:
    """The owner, since when, and his last sign of life [Unix time]; nobody in what is damaged."""
    try:
        said = orjson.loads(told or b"{}")
        return Owner(**said["owner"]), str(said["since"]), float(said["beat"])
    except (orjson.JSONDecodeError, TypeError, KeyError, ValueError):
        return None, "", 0.0
