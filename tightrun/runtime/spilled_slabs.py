"""Layers that need conversion and live on the disk: converted once, written as a file each."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch

from tightrun.runtime.model import ModelRefusedError


def spill_folder(folder: Path, ingredients: list[str]) -> Path:
    """The folder below `folder` for slabs made of exactly these ingredients."""
    digest = hashlib.sha256("\n".join(ingredients).encode()).hexdigest()
    return folder / digest[:16]


def spilled(path: Path, nbytes: int) -> bool:
    """Whether the slab has been written before; a file appears only when it is whole."""
    return path.is_file() and path.stat().st_size == nbytes


def spill(path: Path, slab: torch.Tensor) -> None:
    """Write a slab, uint8, so that it survives a crash whole or not at all.

    Raises ModelRefusedError if the disk is full or the folder cannot be written.
    """
    draft = path.with_suffix(f".{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_through(draft, slab)
        draft.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ModelRefusedError(
            f"cannot write {slab.numel():,} bytes of converted weights to {path.parent}: "
            f"{error.strerror}. {'Make room there or name' if full else 'Name'} another folder."
        ) from error
    finally:
        with suppress(OSError):  # it is gone already, or its folder never was
            draft.unlink()


def _write_through(path: Path, slab: torch.Tensor) -> None:
    with path.open("wb") as file:
        file.write(slab.numpy().data)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
