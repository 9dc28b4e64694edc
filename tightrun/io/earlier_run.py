"""What an earlier run left where the output is to go, and whether this run may touch it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tightrun.io.durable import Disk
from tightrun.io.fingerprint import differences
from tightrun.io.forcing import complete_take_over
from tightrun.io.frames import ABOUT, FrameFile
from tightrun.io.manifest import Manifest, read_manifest
from tightrun.io.output_place import OutputError, OutputPlace, Resume
from tightrun.io.reports import read_runs


def claim(
    place: OutputPlace, resume: Resume = "auto", disk: Disk | None = None
) -> list[tuple[Path, Path]]:
    """To be called before anything is written at `place`, the spool of the input included.

    With "new", what lies there is moved aside; the (old, new) paths are returned. Otherwise what is
    not ours is refused with OutputError, and what is ours is made ready to be gone on with; the
    OutputWriter, which knows the input, can tell whether it is of the same job.
    """
    disk = disk or Disk()
    refuse_unsuitable(place, resume)
    if resume == "new":
        return _move_aside(place, disk)
    for leftover in _temporary_files(place):
        disk.remove(leftover)
    complete_take_over(place, disk)
    return []


def refuse_unsuitable(place: OutputPlace, resume: Resume) -> None:
    """Raises OutputError for what no run may write to; changes nothing."""
    if place.target.exists() and place.target.is_dir() == place.single_file:
        there, wanted = ("folder", "file") if place.single_file else ("file", "folder")
        raise OutputError(
            f"output.path: {place.target} is a {there} and the output is to be a {wanted}; "
            "name another output.path"
        )
    if resume != "new" and earlier_run(place) is None:
        _refuse_foreign(place)


def next_run(place: OutputPlace) -> int:
    """The number of the run that begins now: from 1, and none twice in a folder."""
    known = [record.run for record in read_runs(place.target)]
    # One that was killed has no record; its passes are not to be written over.
    known += [int(path.name[4:8]) for path in (place.report / "steps").glob("run-*")]
    # A manifest that cannot be read is refused, or moved aside, by whoever claims the place.
    with suppress(ValueError):
        earlier = read_manifest(place.manifest)
        known += [earlier.run] if earlier else []
    return 1 + max(known, default=0)


def earlier_run(place: OutputPlace) -> Manifest | None:
    """The manifest of the run whose output lies at `place`, None if there is none."""
    try:
        return read_manifest(place.manifest)
    except ValueError as error:
        raise OutputError(f"output.path: {error}; {_remedy(place)}") from error


def refuse_another_job(place: OutputPlace, earlier: Manifest, now: Manifest) -> None:
    """Raises OutputError, with what differs, if finished rows of another job lie at `place`."""
    changed = what_differs(earlier, now)
    if changed and has_rows(place):
        raise OutputError(
            f"output.path: {place.target} holds the output of another job "
            f"({'; '.join(changed)}); {_remedy(place)}, or --resume force, which keeps the "
            "finished rows whose ids this job has too"
        )


def what_differs(earlier: Manifest, now: Manifest) -> list[str]:
    """A line for each value that makes the rows others, or lets them lie otherwise."""
    return [
        *differences(earlier.fingerprint_parts, now.fingerprint_parts),
        *differences(earlier.layout, now.layout),
        *differences(*_of_both(earlier.input_versions, now.input_versions), "input."),
    ]


def _of_both(
    old: Mapping[str, str], new: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What was read by both; a file that only one has read shows in the ids."""
    names = old.keys() & new.keys()
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def has_rows(place: OutputPlace) -> bool:
    """Whether anything was finished; a run that died before its first row is no loss."""
    journals = (*place.journal.glob("rows-*"), *place.journal.glob("tokens-*"))
    return any(place.seals.glob("train-*")) or any(
        frame.kind != ABOUT for path in journals for frame in FrameFile(path)
    )


def _refuse_foreign(place: OutputPlace) -> None:
    owns = (place.target if place.single_file else place.card, place.failed)
    found = [path for path in owns if path is not None and path.exists()]
    found += sorted(place.data.iterdir()) if place.data.is_dir() else []
    if found:
        raise OutputError(
            f"output.path: {found[0]} is there already, and no manifest says which job it is the "
            f"output of; {_remedy(place)}"
        )


def _temporary_files(place: OutputPlace) -> Iterator[Path]:
    """What a kill left of files that were just being written."""
    for path in (place.target, place.failed, place.card):
        if path is not None:
            yield Disk.temporary(path)
    for folder in (place.data, place.bookkeeping):
        for path in folder.rglob(Disk.temporary(Path("*")).name):
            # Who is at work, or waits for his turn, writes there at any time.
            if not path.is_relative_to(place.live):
                yield path


def _move_aside(place: OutputPlace, disk: Disk) -> list[tuple[Path, Path]]:
    parts = [place.target, place.bookkeeping, place.failed] if place.failed else [place.target]
    there = [part for part in parts if part.exists() and not _holds_only_locks(part, place)]
    time = _free_time(there)
    moved = [(part, part.with_name(f"{part.name}.{time}")) for part in there]
    for old, new in moved:
        try:
            disk.rename(old, new)
        except OSError as error:
            raise OutputError(
                f"output.path: {old} cannot be moved aside ({error.strerror}); name another"
            ) from error
    return moved


def _holds_only_locks(part: Path, place: OutputPlace) -> bool:
    """Whether `part` was made for the lock of this very run, so that nothing is lost with it."""
    if not place.live.is_relative_to(part) or not place.live.is_dir():
        return False
    return all(path.is_dir() or place.live in path.parents for path in part.rglob("*"))


def _free_time(parts: Sequence[Path]) -> str:
    """The time now in UTC; a later one where that name is taken."""
    time = datetime.now(UTC)
    while True:
        text = time.strftime("%Y%m%dT%H%M%SZ")
        if not any(part.with_name(f"{part.name}.{text}").exists() for part in parts):
            return text
        time += timedelta(seconds=1)


def _remedy(place: OutputPlace) -> str:
    return f"name another output.path, or use --resume new, which moves {place.target} aside"
