"""How many rows of an output are done, from its folder alone, whoever is at work there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson

from tightrun.io.frames import ABOUT, FrameFile
from tightrun.io.manifest import Manifest
from tightrun.io.output_place import OutputPlace
from tightrun.io.row_record import FINISHED_ROW, error_code, summary_of
from tightrun.io.seal import Seal, read_seal


class FolderCounts:
    """Counts the rows of the job of `manifest` at `place`; what did not change is read once."""

    def __init__(self, place: OutputPlace, manifest: Manifest) -> None:
        self._place, self.manifest = place, manifest
        self._seals: dict[int, Seal] = {}
        self._journals: dict[Path, tuple[int, dict[int, str | None]]] = {}

    def count(self) -> tuple[int, Counter[str]]:
        """Rows that are done, and how many of them ended with each error."""
        # Journals first: one that goes while we look has become a shard.
        journaled = {int(path.stem[-5:]): self._journaled(path) for path in self._journal_paths()}
        rows = 0
        errors: Counter[str] = Counter()
        for path in self._place.seals.glob("train-*.bin"):
            shard = int(path.stem[-5:])
            seal = self._seals.get(shard) or read_seal(path)
            if seal is None or seal.fingerprint != self.manifest.fingerprint:
                continue
            self._seals[shard] = seal
            if journaled.get(shard, {}).keys() - range(seal.first_row, seal.first_row + seal.rows):
                # Of a run of fewer rows; the journal has them and more.
                continue
            journaled.pop(shard, None)
            rows += seal.rows
            errors.update(seal.errors)
        for found in journaled.values():
            rows += len(found)
            errors.update(code for code in found.values() if code)
        return min(rows, self.manifest.rows), errors

    def _journal_paths(self) -> list[Path]:
        return sorted(self._place.journal.glob("rows-*.bin"))

    def _journaled(self, path: Path) -> dict[int, str | None]:
        """The rows in a journal, each with the code of its error; none if it has just gone."""
        try:
            size = path.stat().st_size
            known_size, known = self._journals.get(path, (-1, {}))
            if size != known_size:
                known = _rows_in(path, self.manifest)
                self._journals[path] = (size, known)
            return known
        except FileNotFoundError:
            return {}


def _rows_in(path: Path, manifest: Manifest) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    ours = manifest.fingerprint
    for frame in FrameFile(path):
        if frame.kind == FINISHED_ROW:
            row, result = summary_of(frame.payload)
            if row < manifest.rows:
                found.setdefault(row, error_code(result))
        elif frame.kind == ABOUT and orjson.loads(frame.payload)["fingerprint"] != ours:
            return {}
    return found
