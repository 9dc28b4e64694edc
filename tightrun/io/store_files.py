"""Which files of an output go to its store, and by which names they are known there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightrun.io.output_place import OutputPlace
from tightrun.io.store import Sending

_SEAL = re.compile(r"sealed/train-(\d+)\.bin")
_ROWS = re.compile(r"(?:train|errors)-(\d+)\.(?:parquet|jsonl)")
_JOURNAL = re.compile(r"journal/(?:rows|tokens)-[A-Za-z0-9-]+\.bin")
_REST = re.compile(
    r"manifest\.json|events\.jsonl|trace(?:-\d+)?\.json\.gz"
    r"|report/(?:steps|runs)/run-[0-9-]+\.parquet"
)


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """The files of the output at `place`, whose names in the store are those below its base.

    Spooled input, locks and what was found damaged stay on the local disk.
    """

    place: OutputPlace

    def name(self, path: Path) -> str:
        """The name in the store."""
        return path.relative_to(self.place.base).as_posix()

    def path(self, name: str) -> Path | None:
        """Where a file of the store belongs; None if it is none of an output's."""
        place, path = self.place, self.place.base / name
        if path in (place.target if place.single_file else place.card, place.failed):
            return path
        if path.parent == place.data:
            return path if _ROWS.fullmatch(path.name) else None
        kept = name.removeprefix(f"{self.name(place.bookkeeping)}/")
        ours = any(form.fullmatch(kept) for form in (_SEAL, _JOURNAL, _REST))
        return path if ours and kept != name else None

    def folders(self) -> list[str]:
        """The folders and files of the store that hold all of it."""
        place = self.place
        if place.failed is None:
            return [""]
        return [self.name(path) for path in (place.target, place.failed, place.bookkeeping)]

    def shard_of(self, name: str) -> int | None:
        """The shard that a file of rows, or a seal, is of."""
        path = self.place.base / name
        form = {self.place.data: _ROWS, self.place.seals: re.compile(r"train-(\d+)\.bin")}
        found = form[path.parent].fullmatch(path.name) if path.parent in form else None
        return int(found[1]) if found else None

    def of_shard(self, shard: int) -> list[Sending]:
        """The rows of a shard, then its seal; without those that are not there."""
        data, seal = self.place.data, self.place.seal(shard)
        rows = [*data.glob(f"train-{shard:05d}.*"), *data.glob(f"errors-{shard:05d}.*")]
        return [self._sending(path) for path in (*sorted(rows), seal) if path.exists()]

    def seal(self, shard: int) -> str:
        """The name of a seal."""
        return self.name(self.place.seal(shard))

    def journals(self) -> list[Sending]:
        """The rows and tokens that are in no shard yet."""
        found = sorted(self.place.journal.glob("*.bin"))
        return [file for file in map(self._sending, found) if self.path(file.name)]

    def is_passing(self, name: str) -> bool:
        """Whether a file is there only until the output is complete."""
        path = self.place.base / name
        passing = path.parent in (self.place.journal, self.place.data)
        return passing and (self.place.single_file or path.parent == self.place.journal)

    def rest(self) -> list[Sending]:
        """All else, what says that it is all there at the end."""
        place = self.place
        manifest = place.manifest
        return [self._sending(path) for path in (*self._others(), manifest) if path.exists()]

    def _others(self) -> Iterator[Path]:
        place = self.place
        if place.failed is not None:
            yield from (place.failed, place.target, *sorted(place.seals.glob("train-*.bin")))
        yield from sorted(place.report.rglob("run-*.parquet"))
        yield from sorted(place.bookkeeping.glob("trace*.json.gz"))
        yield place.bookkeeping / "events.jsonl"
        if place.card is not None:
            yield place.card

    def _sending(self, path: Path) -> Sending:
        return Sending(path, self.name(path))
