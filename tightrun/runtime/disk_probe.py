"""What is read to learn how fast the disk is: a part of the checkpoint, or a file made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tightrun.runtime.device import FileRange, Move
from tightrun.runtime.direct_files import DirectFiles
from tightrun.runtime.page_memory import map_pages
from tightrun.runtime.slab_layout import DISK_GRAIN
from tightrun.runtime.spilled_slabs import spill

READ_BYTES = 256 * 2**20
WRITTEN_BYTES = 64 * 2**20


@contextmanager
def reads_of_disk(
    stored: Sequence[Path], folder: Path, notify: Callable[[str], None]
) -> Iterator[list[Move]]:
    """Moves that read a part of the largest of the `stored` files, past the page cache.

    Where there are none, a file is written to `folder` and removed again; without room for it
    there is nothing to read, which is said.
    """
    files = DirectFiles()
    try:
        if stored:
            yield _moves(files, max(stored, key=lambda path: path.stat().st_size))
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".probe-", dir=folder) as place:
                path = Path(place) / "probe"
                spill(path, torch.ones(WRITTEN_BYTES, dtype=torch.uint8))
                moves = _moves(files, path)
        except (OSError, ValueError) as error:
            notify(f"how fast the disk is stays unknown: {error}")
            moves = []
        yield moves
    finally:
        files.close()


def _moves(files: DirectFiles, path: Path) -> list[Move]:
    size = min(path.stat().st_size, READ_BYTES)
    size -= size % DISK_GRAIN if size > DISK_GRAIN else 0
    room = map_pages(size)
    return [Move(room, FileRange(files.descriptor(path), 0, size))]
