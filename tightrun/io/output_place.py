"""Where a job's output goes: the paths of everything that it is made of."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from tightrun.io.remote import is_url

Resume = Literal["auto", "new", "force"]


class OutputError(ValueError):
    """The output cannot go where the job says; the message says what to do about it."""


class UnwritableError(OutputError):
    """The disk refused the output when it was to be begun, which is not the job's fault."""

    def __init__(self, target: Path, error: OSError) -> None:
        super().__init__(
            f"output.path: {target} cannot be written ({error}); make room or name another"
        )


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """The paths of one job's output: a folder, or a single .jsonl file with a folder beside it.

    `data` holds the shards; for a single file only until they are joined. `bookkeeping` holds
    all that is not output. `failed` and `card` are None where there is none. With a `url`, all of
    it is a copy on the local disk, complete at any time, of what is sent there.
    """

    target: Path
    data: Path
    bookkeeping: Path
    failed: Path | None = None
    card: Path | None = None
    url: str | None = None

    @classmethod
    def of(cls, path: str | Path, copies: Path | None = None) -> OutputPlace:
        """The place for `output.path`; a name that ends in .jsonl is a single file.

        `copies` is the folder for the local copies of outputs at URLs. Raises OutputError for a URL
        without it.
        """
        if is_url(str(path)):
            url = str(path).rstrip("/")
            if copies is None:
                raise OutputError(f"output.path: {url} is not on a local disk; name a folder")
            name = PurePosixPath(url.partition("://")[2]).name
            return replace(cls.of(copies / _folder_name(url) / name), url=url)
        target = Path(path)
        if target.suffix == ".jsonl":
            folder = target.with_name(f"{target.stem}.tightrun")
            failed = target.with_name(f"{target.stem}_errors.jsonl")
            return cls(target, folder / "data", folder, failed)
        return cls(target, target / "data", target / "_tightrun", None, target / "README.md")

    @property
    def single_file(self) -> bool:
        """Whether the output is one file."""
        return self.failed is not None

    @property
    def base(self) -> Path:
        """The folder that all of it is in."""
        return self.target.parent if self.single_file else self.target

    @property
    def manifest(self) -> Path:
        """The description of the run."""
        return self.bookkeeping / "manifest.json"

    @property
    def journal(self) -> Path:
        """Folder of the rows that are not yet in a shard."""
        return self.bookkeeping / "journal"

    @property
    def report(self) -> Path:
        """Folder of the report tables."""
        return self.bookkeeping / "report"

    @property
    def input_spool(self) -> Path:
        """Folder for copies of inputs that can be read only once."""
        return self.bookkeeping / "input"

    @property
    def live(self) -> Path:
        """Folder of what the runs that live hold."""
        return self.bookkeeping / "live"

    @property
    def trace(self) -> Path:
        """What the links did in some passes of the last run."""
        return self.bookkeeping / "trace.json.gz"

    def trace_of(self, run: int) -> Path:
        """The same of a run that came to share the output while another was at work on it."""
        return self.bookkeeping / f"trace-{run:04d}.json.gz"

    @property
    def seals(self) -> Path:
        """Folder of what was noted of each shard when it was written."""
        return self.bookkeeping / "sealed"

    @property
    def damaged(self) -> Path:
        """Folder for shards that are no longer what they were; their rows are run again."""
        return self.bookkeeping / "damaged"

    @property
    def aside(self) -> Path:
        """Folder of journals that are to take the place of all that is there."""
        return self.bookkeeping / "journal.aside"

    def row_journal(self, shard: int) -> Path:
        """The finished rows of a shard that is not yet written."""
        return self.journal / f"rows-{shard:05d}.bin"

    def column_spool(self, shard: int) -> Path:
        """The kept input columns of a shard that is not yet written."""
        return self.journal / f"columns-{shard:05d}.arrow"

    def seal(self, shard: int) -> Path:
        """What was noted of a shard when it was written."""
        return self.seals / f"train-{shard:05d}.bin"

    def shard(self, index: int, suffix: str) -> Path:
        """The file of a shard."""
        return self.data / f"train-{index:05d}{suffix}"

    def shard_errors(self, index: int) -> Path | None:
        """The file of a shard's failed rows, where these are also written on their own."""
        return self.data / f"errors-{index:05d}.jsonl" if self.single_file else None


def _folder_name(url: str) -> str:
    """A name for what belongs to a URL, and to no other, that a person knows it by."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", url).strip("-.")[-60:]
    return f"{readable}-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"
