"""What lies in a store of an output, brought to the local copy: another machine may have been on.

Rows come before the seals that vouch for them, and the manifest last, so that a fetch that breaks
off is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tightrun.io.durable import OPEN_TO_UMASK, OWNER_ONLY, Disk
from tightrun.io.earlier_run import earlier_run
from tightrun.io.manifest import Manifest, manifest_of
from tightrun.io.output_place import OutputError, OutputPlace
from tightrun.io.store import Store
from tightrun.io.store_files import StoreFiles

Note = Callable[[str], None]


def fetch(place: OutputPlace, store: Store, there: Mapping[str, int], note: Note) -> None:
    """Brings what is newer in the store than at `place`; `there` are its files, with their sizes.

    Raises OutputError if what lies in the store is the output of no job, or of another one than
    the copy.
    """
    files, disk = StoreFiles(place), Disk()
    told = store.read(files.name(place.manifest))
    ours = earlier_run(place)
    if told is None:
        if ours is None:
            _refuse_foreign(store, files, there)
        return
    try:
        theirs = manifest_of(told, f"{store}/{files.name(place.manifest)}")
    except ValueError as error:
        raise OutputError(f"output.path: {error}; name another output.path") from error
    known = [name for name in there if files.path(name) is not None]
    if ours is None or _has_gone_on(theirs, ours):
        if ours is not None and ours.fingerprint != theirs.fingerprint:
            raise OutputError(
                f"output.path: {store} holds the output of another job by now than the copy of it "
                f"at {place.target}; name another output.path, or move the copy away"
            )
        wanted = [name for name in known if _differs(name, files, store)]
    else:
        wanted = _lost_rows(known, files)
    if wanted:
        note(f"fetching {len(wanted):,} files of an earlier run from {store}")
    bring(wanted, files, store, disk)


def bring(names: Iterable[str], files: StoreFiles, store: Store, disk: Disk) -> None:
    """Copies files of the store to where they belong."""
    place = files.place
    order = (place.data, place.seals, place.journal)
    paths = {name: path for name in names if (path := files.path(name)) is not None}
    for folder in (place.data, place.bookkeeping):
        disk.make_folder(folder)
    for private in (place.journal, place.seals):
        disk.make_folder(private, 0o700)

    def rank(name: str) -> tuple[int, str]:
        path = paths[name]
        if path == place.manifest:
            return len(order) + 1, name
        return (order.index(path.parent) if path.parent in order else len(order)), name

    for name in sorted(paths, key=rank):
        path = paths[name]
        disk.make_folder(path.parent)
        kept = path.is_relative_to(place.bookkeeping) and path.parent != place.data
        disk.write_whole(path, store.chunks(name), OWNER_ONLY if kept else OPEN_TO_UMASK)


def _has_gone_on(theirs: Manifest, ours: Manifest) -> bool:
    """Whether the store tells of a run that the copy knows nothing of."""
    runs = {(run["run"], run["started"]) for run in ours.earlier} | {(ours.run, ours.started)}
    return (theirs.run, theirs.started) not in runs


def _differs(name: str, files: StoreFiles, store: Store) -> bool:
    """Whether the copy of a file is to be replaced."""
    path = files.path(name)
    assert path is not None
    shard = files.shard_of(name)
    if not path.exists():
        return True
    if shard is None:
        # Reports of earlier runs are never changed, and events only grow.
        return path == files.place.manifest or path.parent == files.place.journal
    seal = files.place.seal(shard)
    return not seal.exists() or seal.read_bytes() != store.read(files.seal(shard))


def _lost_rows(known: Iterable[str], files: StoreFiles) -> list[str]:
    """The files of rows that have a seal here, and are not here themselves."""
    lost = []
    for name in known:
        shard, path = files.shard_of(name), files.path(name)
        if shard is None or path is None or path.exists() or files.place.single_file:
            continue
        if files.place.seal(shard).exists():
            lost.append(name)
    return lost


def _refuse_foreign(store: Store, files: StoreFiles, there: Iterable[str]) -> None:
    place = files.place
    for name in there:
        path = place.base / name
        if path in (place.target, place.failed, place.card) or path.parent == place.data:
            raise OutputError(
                f"output.path: {store}/{name} is there already, and no manifest says which job it "
                "is the output of; name another output.path, or use --resume new, which moves it "
                "aside"
            )
