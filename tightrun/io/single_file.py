"""The shards of a job joined into the one file that was asked for, and found in it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from tightrun.io.durable import Disk
from tightrun.io.output_place import OutputPlace
from tightrun.io.seal import Seal

_PIECE_BYTES = 1 << 20


class Part(NamedTuple):
    """Where something lies: all of a file, or `nbytes` of it from `start` on."""

    path: Path
    start: int = 0
    nbytes: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the content of each sealed shard lies: in a file of its own, or in the joined one.

    `joined` tells the place of each in the joined file, and of its failed rows in theirs.
    """

    place: OutputPlace
    suffix: str
    joined: Mapping[int, tuple[Part, Part]]

    @classmethod
    def of(cls, place: OutputPlace, suffix: str, seals: Mapping[int, Seal]) -> Self:
        """The parts of these shards; those after a shard without a seal are found nowhere else."""
        joined: dict[int, tuple[Part, Part]] = {}
        start = failed_start = 0
        while place.failed is not None and (seal := seals.get(len(joined))) is not None:
            nbytes, failed_nbytes = seal.content.nbytes, seal.failed.nbytes
            joined[len(joined)] = (
                Part(place.target, start, nbytes),
                Part(place.failed, failed_start, failed_nbytes),
            )
            start, failed_start = start + nbytes, failed_start + failed_nbytes
        return cls(place, suffix, joined)

    def of_shard(self, shard: int) -> list[Part | None]:
        """The part of a shard, and that of its failed rows where there is one; None: nowhere."""
        own = (self.place.shard(shard, self.suffix), self.place.shard_errors(shard))
        joined = self.joined.get(shard, (None, None))
        return [_where(path, there) for path, there in zip(own, joined, strict=True) if path]

    def restore(self, disk: Disk, shards: Iterable[int]) -> None:
        """Gives shards that are only in the joined file files of their own again."""
        if not self.place.single_file:
            return
        disk.make_folder(self.place.data)
        for shard in sorted(shards):
            own = (self.place.shard(shard, self.suffix), self.place.shard_errors(shard))
            for path, part in zip(own, self.of_shard(shard), strict=True):
                if path is not None and part is not None and part.path != path:
                    disk.write_whole(path, _pieces(part))


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
    else:
        disk.remove(place.failed)
    disk.write_whole(place.target, _content(parts))
    for part in (*parts, *failed):
        disk.remove(part)
    disk.remove_folder(place.data)


def _where(path: Path, joined: Part | None) -> Part | None:
    if path.exists():
        return Part(path)
    return joined if joined is not None and (joined.path.exists() or not joined.nbytes) else None


def _content(parts: Sequence[Path]) -> Iterator[bytes]:
    for part in parts:
        yield from _pieces(Part(part))


def _pieces(part: Part) -> Iterator[bytes]:
    if part.nbytes == 0:
        return
    left = part.nbytes
    with part.path.open("rb") as file:
        file.seek(part.start)
        while left != 0:
            piece = file.read(_PIECE_BYTES if left is None else min(_PIECE_BYTES, left))
            if not piece:
                return
            yield piece
            left = None if left is None else left - len(piece)
