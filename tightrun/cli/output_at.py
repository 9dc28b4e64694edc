"""Where the output of a job is: on a local disk, or at a URL with a copy of it here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tightrun.cli.summary import short_path
from tightrun.io.durable import Disk
from tightrun.io.fetching import bring
from tightrun.io.outputs import OutputError, OutputPlace
from tightrun.io.owner import Here
from tightrun.io.publishing import OWNER_FILE, store_of
from tightrun.io.store_files import StoreFiles
from tightrun.io.store_owner import owner_of


def place_of(path: str, environment: Mapping[str, str] | None = None) -> OutputPlace:
    """The place of `output.path`."""
    return OutputPlace.of(path, copies_folder(os.environ if environment is None else environment))


def name_of(place: OutputPlace) -> str:
    """What a person calls it: the URL, or the path as short as it can be said from here."""
    return place.url or short_path(place.target)


def copies_folder(environment: Mapping[str, str]) -> Path:
    """Where copies of outputs at URLs are: `$XDG_STATE_HOME/tightrun`, by default below
    `~/.local/state`. Source: XDG base directory specification."""
    base = environment.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "tightrun/outputs"


def refuse_shared(place: OutputPlace) -> None:
    """Raises OutputError for an output that several processes cannot share."""
    if place.url is not None:
        raise OutputError(
            f"output.path: {place.url}: processes share an output through a folder that all of "
            "them see; write to one, or run the job in one process"
        )


@contextmanager
def look_at(out: str, here: Here) -> Iterator[tuple[OutputPlace, bool]]:
    """The place of an output to be read, and whether a run is at work on it somewhere else.

    Of one at a URL, without a copy of it here, what tells of it is fetched, and the rows are not.
    """
    place = place_of(out)
    if place.url is None:
        yield place, False
        return
    store = store_of(place)
    files = StoreFiles(place)
    owner = owner_of(store.read(files.name(place.bookkeeping / OWNER_FILE)), here)
    elsewhere = owner is not None and owner.host != here.me.host
    if place.manifest.exists() and not elsewhere:
        yield place, False
        return
    with TemporaryDirectory(prefix="tightrun-") as folder:
        seen = OutputPlace.of(place.url, Path(folder))
        files = StoreFiles(seen)
        there = store.sizes(files.name(seen.bookkeeping))
        if files.name(seen.manifest) not in there:
            raise OutputError(
                f"{out} is not the output of a job: no manifest is there; name the output.path of "
                "the job"
            )
        rows = [name for name in there if (seen.base / name).parent == seen.data]
        bring(there.keys() - rows, files, store, Disk())
        yield seen, elsewhere
