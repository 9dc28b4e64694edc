"""Sends the output to the URL where it goes: each shard when it is sealed, the rest at the end.

It runs in a thread beside the run. The local copy is complete without it, so that no failure of
the network costs a row: it is tried again for as long as the run lasts, and by the next one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from tightrun.io.fetching import Note, fetch
from tightrun.io.lock import LostError
from tightrun.io.output_place import OutputError, OutputPlace, Resume
from tightrun.io.owner import BEAT_S, Here
from tightrun.io.patience import RemoteError
from tightrun.io.store import Sending, Store
from tightrun.io.store_files import StoreFiles
from tightrun.io.store_owner import StoreOwner

OWNER_FILE = "owner.json"
_TRY_AGAIN_S = 60.0
_POLL_S = 0.1
# Of the 20 s that a stop may take.
_STOP_S = 8.0
_CLOSE_S = 2.0


def store_of(place: OutputPlace) -> Store:
    """The store of an output at a URL: the folder that holds all of it."""
    assert place.url is not None
    return Store(place.url.rpartition("/")[0] if place.single_file else place.url)


class Publishing:
    """The way of one run's output from `place` to its URL.

    `failed` is told what ends the run: that another one has taken over.
    """

    def __init__(
        self,
        place: OutputPlace,
        here: Here,
        *,
        note: Note,
        failed: Callable[[Exception], None],
        store: Store | None = None,
    ) -> None:
        self._place, self._note, self._failed = place, note, failed
        self._store = store or store_of(place)
        self._files = StoreFiles(place)
        self._owner_file = self._files.name(place.bookkeeping / OWNER_FILE)
        self._owner = StoreOwner(self._store, self._owner_file, here)
        self._owns = False
        self._there: dict[str, int] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._ending = self._sent_all = False
        self._concludes = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="tightrun-publishing", daemon=True)

    @property
    def left(self) -> int:
        """How many shards wait to be sent."""
        return len(self._waiting)

    def begin(self, resume: Resume) -> None:
        """Takes the output, and brings here what another machine has left there.

        Raises LockedError if another run holds it, OutputError for what cannot be gone on with or
        written to, RemoteError where the network fails.
        """
        try:
            self._store.make()
            self._owner.take()
        except (PermissionError, NotImplementedError) as error:
            raise _unwritable(self._store, error) from error
        self._owns = True
        self._thread.start()
        if resume == "new":
            self._move_aside()
        self._there = self._list()
        fetch(self._place, self._store, self._there, self._note)

    def announce(self) -> None:
        """Sends the manifest, which says of what is to come whose it is."""
        path = self._place.manifest
        # As it is now: when its turn comes, it may say that all is there.
        manifest = Sending(path.read_bytes(), self._files.name(path))
        self._give(partial(self._send, [manifest]))

    def sealed(self, shard: int) -> None:
        """Sends a shard that is whole at the place. May be called from any thread."""
        self._give(partial(self._send_shard, shard))

    def catch_up(self, shards: Iterable[int]) -> None:
        """Sends those of the shards, all whole at the place, that are not there yet."""
        for shard in sorted(shards):
            self._give(partial(self._send_shard, shard))

    def conclude(self, stop: threading.Event) -> bool:
        """Sends all that is left; whether all of it is there. After a stop it waits a little only.

        Raises RemoteError, or what else went wrong.
        """
        with self._changed:
            self._ending = self._concludes = True
            self._changed.notify_all()
        until_s: float | None = None
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
            if stop.is_set():
                until_s = until_s or time.monotonic() + _STOP_S
                if time.monotonic() > until_s:
                    return False
        if self._error is not None:
            raise self._error
        return self._sent_all

    def close(self) -> None:
        """Ends the sending, whatever is left, and gives the output back."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._owns:
            self._thread.join(_CLOSE_S)

    def _give(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(work)
            self._changed.notify_all()

    def _move_aside(self) -> None:
        ending = time.strftime(".%Y%m%dT%H%M%SZ", time.gmtime())
        names = self._files.folders()
        there = self._list()
        if not any(name != self._owner_file for name in there):
            return
        self._owner.leave()
        self._store.move(names, ending)
        self._owner.take()
        self._note(f"{self._place.url} was moved to {self._place.url}{ending}")

    def _list(self) -> dict[str, int]:
        there: dict[str, int] = {}
        for folder in self._files.folders():
            there |= self._store.sizes(folder)
        return there

    # In the thread.

    def _work(self) -> None:
        try:
            while not self._is_over():
                work = self._next()
                if work is not None:
                    self._patiently(work)
                elif self._store.cheap:
                    self._renew()
            if self._concludes:
                self._send_rest()
                self._sent_all = True
        except Exception as error:  # it is raised where the end is waited for
            self._error = error
            if isinstance(error, LostError):
                self._failed(error)
        finally:
            self._leave()

    def _is_over(self) -> bool:
        with self._changed:
            return self._ending and not (self._concludes and self._waiting)

    def _next(self) -> Callable[[], None] | None:
        """What is to be sent next; None when it is time for a sign of life."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending, BEAT_S)
            return self._waiting.popleft() if self._waiting else None

    def _patiently(self, work: Callable[[], None]) -> None:
        """Sends something, however long the store cannot be reached."""
        said = False
        while True:
            try:
                work()
                return
            except (RemoteError, OSError) as error:
                if self._ending:
                    raise
                if not said:
                    self._note(
                        f"{error}; the rows are kept at {self._place.target}, and it is tried "
                        "again every minute"
                    )
                    said = True
                with self._changed:
                    self._changed.wait_for(lambda: self._ending, _TRY_AGAIN_S)

    def _send_shard(self, shard: int) -> None:
        files = self._files.of_shard(shard)
        if len(files) < 2:
            # Joined with others by now, which are sent as one.
            return
        seal = self._place.seal(shard)
        there = all(self._there.get(file.name) == _nbytes(file) for file in files)
        if there and self._store.read(self._files.seal(shard)) == seal.read_bytes():
            return
        self._owner.check()
        self._send([*files, self._owner.sign()])

    def _renew(self) -> None:
        try:
            self._owner.renew()
        except (RemoteError, OSError):
            # What is to be sent will tell, and for longer than a beat.
            return

    def _send_rest(self) -> None:
        self._owner.check()
        self._send(self._files.journals())
        rest = self._files.rest()
        changed = [file for file in rest if self._there.get(file.name) != _nbytes(file)]
        changed += [file for file in rest if file not in changed and self._other_text(file)]
        self._send(sorted(changed, key=rest.index))
        passing = [name for name in self._there if self._files.is_passing(name)]
        self._store.remove(name for name in passing if not (self._place.base / name).exists())

    def _other_text(self, file: Sending) -> bool:
        """Whether a file that may change without a change of its size has done so."""
        small = file.content in (self._place.manifest, self._place.card)
        assert not isinstance(file.content, bytes)
        return small and self._store.read(file.name) != file.content.read_bytes()

    def _send(self, files: list[Sending]) -> None:
        if files:
            self._store.put(files)
            self._there |= {file.name: _nbytes(file) for file in files}

    def _leave(self) -> None:
        try:
            self._owner.leave()
        except (RemoteError, OSError) as error:
            self._note(f"{self._store} is not given back: {error}")


def _nbytes(file: Sending) -> int:
    content = file.content
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _unwritable(store: Store, error: Exception) -> OutputError:
    why = " ".join(str(error).split()) or type(error).__name__
    return OutputError(f"output.path: {store} cannot be written to ({why}); name another")
