"""The shards of a job joined into the one file that was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tightrun.io.durable import Disk
from tightrun.io.output_place import OutputPlace

_PIECE_BYTES = 1 << 20


def join_shards(
    disk: Disk, place: OutputPlace, shards: int, suffix: str, *, any_failed: bool
) -> None:
    """Writes the target whole, from all shards in order, and the file of the failed rows if any.

    The target gets its name last; then the shards are removed.
    """
    assert place.failed is not None
    parts = [place.shard(index, suffix) for index in range(shards)]
    failed = [part for index in range(shards) if (part := place.shard_errors(index))]
    if any_failed:
        disk.write_whole(place.failed, _content(failed))
    disk.write_whole(place.target, _content(parts))
    for part in (*parts, *failed):
        disk.remove(part)
    disk.remove_folder(place.data)


def _content(parts: Sequence[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
