"""The journal of tokens that unfinished rows have so far, so that a kill does not cost them.

A file begins with all that is alive and is appended to; when most of it is of rows that have
finished since, a new one is begun, and the old one goes once the new one is on the disk. A row is
not said to have ended: whoever reads the journal knows which rows have finished. Each run has files
of its own, so that runs which share an output can write at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from tightrun.core import Written
from tightrun.io.durable import OWNER_ONLY, Disk, DiskFile
from tightrun.io.frames import ABOUT, MAGIC, FrameFile, pack_frame
from tightrun.io.token_record import TOKENS, Piece, in_records, pieces_of

_RECORD_BYTES = 1 << 20
# A file this small is not worth a new one.
_SPARE_BYTES = 8 << 20

# By row, and then by sample: all tokens of each.
Begun = dict[int, dict[int, Piece]]


@dataclass(slots=True)
class _Known:
    """How many tokens of a sample are in the journal, behind which prompt, in how many bytes."""

    prompt: int = 0
    tokens: int = 0
    nbytes: int = 0


class TokenJournal:
    """Writes the tokens of the run of that number. `begun` are those of earlier runs that are not
    done with; the files they were in go, unless others that share the output may need them.

    Its memory is a few numbers for each unfinished sample. Not thread-safe.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        fingerprint: str,
        begun: Mapping[int, Mapping[int, Piece]],
        *,
        run: int = 1,
        shared: bool = False,
        spare_bytes: int = _SPARE_BYTES,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._run = run
        self._about = orjson.dumps({"fingerprint": fingerprint})
        self._spare_bytes = spare_bytes
        self._known: dict[int, dict[int, _Known]] = {}
        self._alive_bytes = 0
        self._dirty = False
        pieces = [piece for samples in begun.values() for piece in samples.values()]
        for piece in pieces:
            self._count(piece)
        self._file = self._begin(pieces, [] if shared else _files(folder))

    @property
    def alive_bytes(self) -> int:
        """Bytes of the tokens of rows that have not ended."""
        return self._alive_bytes

    def known(self, row_index: int, sample: int, prompt: int) -> int:
        """How many tokens of a sample are in the journal behind that prompt."""
        known = self._known.get(row_index, {}).get(sample)
        return known.tokens if known is not None and known.prompt == prompt else 0

    def keep(self, written: Iterable[Written]) -> None:
        """Adds tokens, each sample's from the first that is not known."""
        pieces = [Piece.of(part) for part in written]
        for piece in pieces:
            assert piece.first == self.known(piece.row_index, piece.sample, piece.prompt)
            self._count(piece)
        for record in in_records(pieces, _RECORD_BYTES):
            self._file.write(pack_frame(TOKENS, record))
            self._dirty = True

    def end(self, row_index: int) -> None:
        """The row has finished: its tokens are not needed any more."""
        for known in self._known.pop(row_index, {}).values():
            self._alive_bytes -= known.nbytes

    def sync(self) -> None:
        """Returns when all that was kept is on the disk; now and then in a new file."""
        if self._dirty:
            self._file.sync()
            self._dirty = False
        if self._file.size > 2 * self._alive_bytes + self._spare_bytes:
            self._file.close()
            self._file = self._begin(self._alive(self._file.path), [self._file.path])

    def close(self) -> None:
        """Ends the writing; the file goes if no row needs it."""
        self._file.close()
        if not self._known:
            self._disk.remove(self._file.path)

    def abandon(self) -> None:
        """Closes after a failure; what had reached the disk stays there."""
        self._file.abandon()

    def _count(self, piece: Piece) -> None:
        samples = self._known.setdefault(piece.row_index, {})
        known = samples.setdefault(piece.sample, _Known())
        if piece.first == 0:
            self._alive_bytes -= known.nbytes
            known.nbytes = 0
        known.prompt, known.tokens = piece.prompt, piece.stop
        known.nbytes += piece.nbytes
        self._alive_bytes += piece.nbytes

    def _begin(self, alive: Iterable[Piece], old: list[Path]) -> DiskFile:
        """A new file that begins with `alive`; then the old ones go."""
        mine = sorted(self._folder.glob(f"tokens-{self._run:04d}-*.bin"))
        number = 1 + int(mine[-1].stem[-5:]) if mine else 0
        path = self._folder / f"tokens-{self._run:04d}-{number:05d}.bin"
        with self._disk.whole(path, OWNER_ONLY) as file:
            file.write(MAGIC)
            file.write(pack_frame(ABOUT, self._about))
            for record in in_records(alive, _RECORD_BYTES):
                file.write(pack_frame(TOKENS, record))
        for earlier in old:
            self._disk.remove(earlier)
        return self._disk.append(path)

    def _alive(self, path: Path) -> Iterator[Piece]:
        """The pieces of a file whose rows have not ended."""
        for piece in _pieces(FrameFile(path)):
            if piece.stop <= self.known(piece.row_index, piece.sample, piece.prompt):
                yield piece


def read_tokens(
    folder: Path, fingerprint: str, rows: range | None = None, live: Container[int] = ()
) -> tuple[Begun, list[str]]:
    """The tokens that earlier runs of a job have left, of `rows` only if given, and what is to be
    said of their files; those of the runs `live` are not looked at.

    Of a sample that several files have, the most tokens count: each is what the others began.
    """
    begun: Begun = {}
    complaints = []
    for path in _files(folder):
        if run_of(path) in live:
            continue
        try:
            file = FrameFile(path)
            found = _begun(file, fingerprint, rows)
        except FileNotFoundError:
            # Its run has come meanwhile, or was faster: it is at work on other rows.
            continue
        for row, samples in found.items():
            known = begun.setdefault(row, {})
            for sample, piece in samples.items():
                if sample not in known or piece.stop >= known[sample].stop:
                    known[sample] = piece
        if file.complaint:
            complaints.append(file.complaint)
    return begun, complaints


def _begun(file: FrameFile, fingerprint: str, rows: range | None) -> Begun:
    begun: Begun = {}
    for piece in _pieces(file, fingerprint):
        if rows is not None and piece.row_index not in rows:
            continue
        samples = begun.setdefault(piece.row_index, {})
        before = samples.get(piece.sample)
        if piece.first == 0:
            samples[piece.sample] = piece
        elif before is not None and piece.follows(before):
            before.add(piece)
    return {row: samples for row, samples in begun.items() if samples}


def _pieces(file: FrameFile, fingerprint: str | None = None) -> Iterator[Piece]:
    """All pieces of a file, if it is of that job; None takes any."""
    ours = fingerprint is None
    for frame in file:
        if frame.kind == ABOUT:
            ours = ours or orjson.loads(frame.payload).get("fingerprint") == fingerprint
        elif frame.kind == TOKENS and ours:
            yield from pieces_of(frame.payload)


def run_of(path: Path) -> int:
    """The number of the run that a file of tokens is of."""
    return int(path.stem.split("-")[1])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("tokens-*.bin"))
