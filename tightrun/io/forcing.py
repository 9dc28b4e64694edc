"""Finished rows taken over into another job: those whose id it has too, at their new place.

All of them go to journals in a folder aside, and the manifest of the new job beside them says that
they are all there. Only then what was before is removed and they take its place, and if that breaks
off, the next run does what is left of it. So at any moment one of the two has every row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from tightrun.io.durable import Disk, DiskFile
from tightrun.io.earlier_rows import Layout
from tightrun.io.frames import ABOUT, FrameFile, pack_frame
from tightrun.io.journal import begin_journal
from tightrun.io.manifest import Manifest
from tightrun.io.output_place import OutputError, OutputPlace
from tightrun.io.read_back import rows_of_shard
from tightrun.io.row_ids import hash_id
from tightrun.io.row_record import FINISHED_ROW, Finished, decode_row, encode_row
from tightrun.io.seal import content_of, read_seal
from tightrun.io.single_file import Parts

_OPEN_FILES = 64


class TakenOver(NamedTuple):
    """How many finished rows the new job has as well, and how many it has not."""

    kept: int
    left_out: int


def take_over(
    place: OutputPlace,
    earlier: Manifest,
    now: Manifest,
    layout: Layout,
    id_hashes: np.ndarray,
    suffix: str,
    disk: Disk,
) -> TakenOver:
    """Makes what lies at `place` an unfinished run of the job `now`; `id_hashes` are its ids'.

    Raises OutputError for another format, in which the rows cannot be written again.
    """
    if earlier.format != now.format:
        raise OutputError(
            f"output.format: the rows at {place.target} are {earlier.format}, and cannot be made "
            f"{now.format}; name another output.path"
        )
    _remove_aside(place, disk)
    disk.make_folder(place.aside, 0o700)
    order = np.argsort(id_hashes, kind="stable")
    ordered = id_hashes[order]
    journals = _Journals(place, layout, disk)
    kept = left_out = 0
    for finished in _finished_rows(place, earlier, suffix):
        wanted = np.uint64(hash_id(finished.completion.id))
        at = int(np.searchsorted(ordered, wanted))
        if at < len(ordered) and ordered[at] == wanted:
            row = replace(finished.completion, row_index=int(order[at]))
            journals.add(Finished(row, finished.created_s))
            kept += 1
        else:
            left_out += 1
    journals.close()
    now.write(disk, place.aside / place.manifest.name)
    complete_take_over(place, disk)
    return TakenOver(kept, left_out)


def complete_take_over(place: OutputPlace, disk: Disk) -> None:
    """Does what is left of a taking over that broke off; one that did not come far is undone."""
    told = place.manifest.name
    if (place.aside / told).exists():
        for path in (place.target, place.failed) if place.failed else ():
            disk.remove(path)
        shards = (*place.data.glob("train-*"), *place.data.glob("errors-*"))
        for path in (*shards, *place.seals.glob("*"), *place.journal.glob("*")):
            disk.remove(path)
        disk.remove_folder(place.journal)
        disk.rename(place.aside, place.journal)
    elif place.aside.exists():
        _remove_aside(place, disk)
    if (place.journal / told).exists():
        disk.rename(place.journal / told, place.manifest)


def _remove_aside(place: OutputPlace, disk: Disk) -> None:
    for path in sorted(place.aside.glob("*")):
        disk.remove(path)
    disk.remove_folder(place.aside)


def _finished_rows(place: OutputPlace, earlier: Manifest, suffix: str) -> Iterator[Finished]:
    """All rows that can be trusted, of shards and of journals."""
    paths = {int(path.stem[-5:]): path for path in sorted(place.seals.glob("train-*.bin"))}
    seals = {}
    for shard, path in paths.items():
        seal = read_seal(path)
        if seal is not None and seal.fingerprint == earlier.fingerprint:
            seals[shard] = seal
    parts = Parts.of(place, suffix, seals)
    sealed_rows = {}
    for shard, seal in seals.items():
        part = parts.of_shard(shard)[0]
        if part is None or content_of(*part) != seal.content:
            continue
        sealed_rows[shard] = seal.rows
        yield from rows_of_shard(part, earlier.format, earlier.columns, seal.first_row)
    for path in sorted(place.journal.glob("rows-*.bin")):
        # The journal of a shard that ended early stays: its first rows were in the shard.
        shard = int(path.stem[-5:])
        first = shard * earlier.shard_rows + sealed_rows.get(shard, 0)
        for finished in _journaled(path, earlier.fingerprint):
            if finished.completion.row_index >= first:
                yield finished


def _journaled(path: Path, fingerprint: str) -> Iterator[Finished]:
    for frame in FrameFile(path):
        if frame.kind == FINISHED_ROW:
            yield decode_row(frame.payload)
        elif frame.kind == ABOUT and orjson.loads(frame.payload)["fingerprint"] != fingerprint:
            return


class _Journals:
    """Journals of all shards of a job, a bounded number of them open."""

    def __init__(self, place: OutputPlace, layout: Layout, disk: Disk) -> None:
        self._place, self._layout, self._disk = place, layout, disk
        self._open: OrderedDict[int, DiskFile] = OrderedDict()

    def add(self, finished: Finished) -> None:
        """Appends a row to the journal of its shard."""
        shard = finished.completion.row_index // self._layout.shard_rows
        self._file(shard).write(pack_frame(FINISHED_ROW, encode_row(finished)))

    def close(self) -> None:
        """Returns when all rows are on the disk."""
        while self._open:
            self._close_oldest()

    def _file(self, shard: int) -> DiskFile:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) == _OPEN_FILES:
            self._close_oldest()
        path = self._place.aside / self._place.row_journal(shard).name
        self._open[shard] = file = self._disk.append(path)
        if not file.size:
            begin_journal(file, self._layout.span_of(shard), self._layout.fingerprint)
        return file

    def _close_oldest(self) -> None:
        _, file = self._open.popitem(last=False)
        file.sync()
        file.close()
