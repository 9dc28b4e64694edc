"""Rows that failed are put among those to do again, in the midst of an output that may be complete.

The good rows of a shard with such rows go to a journal, whole, and then its seal goes: what is left
is a shard that is begun. Its file stays until a run has sealed it again. A crash before the seal
has gone leaves the shard as it was, one after that a job that the next run completes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import orjson

from tightrun.io.durable import OWNER_ONLY, Disk
from tightrun.io.earlier_rows import EarlierRows, take_journal
from tightrun.io.frames import FrameFile, pack_frame
from tightrun.io.journal import RETRIED, begin_journal
from tightrun.io.manifest import Manifest
from tightrun.io.read_back import rows_of_shard
from tightrun.io.row_record import FINISHED_ROW, Finished, decode_row, encode_row
from tightrun.io.seal import Seal, read_seal


def rows_to_retry(found: EarlierRows, codes: Set[str]) -> int:
    """How many rows have failed with one of these error codes."""
    return sum(found.errors[code] for code in codes)


def retry_rows(found: EarlierRows, codes: Set[str], now: Manifest, disk: Disk) -> None:
    """Takes the rows that failed with `codes` out of those that are done."""
    place = found.parts.place
    chosen: dict[int, Seal] = {}
    for shard in sorted(found.sealed):
        seal = read_seal(place.seal(shard))
        if seal is not None and codes & seal.errors.keys():
            chosen[shard] = seal
    begun = [path for path in place.journal.glob("rows-*.bin") if int(path.stem[-5:]) not in chosen]
    disk.make_folder(place.journal, 0o700)
    # A joined file can be taken apart only while every seal is there.
    found.parts.restore(disk, found.sealed if chosen else ())
    for shard, seal in chosen.items():
        part = found.parts.of_shard(shard)[0]
        assert part is not None, f"shard {shard} is sealed, and not there"
        rows = rows_of_shard(part, now.format, now.columns, seal.first_row)
        _write_without(codes, rows, shard, found, disk)
        disk.remove(place.seal(shard))
        found.unseal(shard, seal)
        take_journal(place.row_journal(shard), found, disk)
    if chosen:
        disk.sync_folder(place.seals)
    for path in begun:
        shard = int(path.stem[-5:])
        if shard in found.journaled:
            _write_without(codes, _journaled(path), shard, found, disk)
            take_journal(path, found, disk)


def _write_without(
    codes: Set[str], rows: Iterable[Finished], shard: int, found: EarlierRows, disk: Disk
) -> None:
    """Writes the journal of a shard without the rows to retry, of which it keeps the attempt."""
    layout = found.layout
    with disk.whole(found.parts.place.row_journal(shard), OWNER_ONLY) as file:
        begin_journal(file, layout.span_of(shard), layout.fingerprint)
        for finished in rows:
            row = finished.completion
            if row.error is None or row.error.code not in codes:
                file.write(pack_frame(FINISHED_ROW, encode_row(finished)))
            else:
                again = orjson.dumps((row.row_index, row.attempt + 1))
                file.write(pack_frame(RETRIED, again))


def _journaled(path: Path) -> Iterator[Finished]:
    for frame in FrameFile(path):
        if frame.kind == FINISHED_ROW:
            yield decode_row(frame.payload)
