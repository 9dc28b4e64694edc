"""A checkpoint's safetensors files: where every stored tensor lies, and reading single ones.

Nothing but the headers is read at first. The format: https://huggingface.co/docs/safetensors, an
8-byte little-endian length, a JSON header of that length, then the tensors' bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from tightrun.runtime.checkpoint import ModelSource
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.page_memory import map_pages

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
READ_AT_ONCE = 2**30
PAGES_FROM = 2**16
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: `nbytes` bytes from `offset` of the file on, row-major."""

    key: str
    path: Path
    offset: int
    nbytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class CheckpointFiles:
    """Every tensor of a checkpoint by its key; the files stay open until `close`."""

    def __init__(self, paths: list[Path]) -> None:
        self._descriptors: dict[Path, int] = {}
        self.tensors: dict[str, StoredTensor] = {}
        try:
            for path in sorted(paths):
                self._open(path)
        except ModelRefusedError:
            self.close()
            raise

    @property
    def paths(self) -> list[Path]:
        """The files that are open."""
        return list(self._descriptors)

    def read(self, stored: StoredTensor) -> torch.Tensor:
        """The tensor in fresh host memory, which goes back to the system when it is let go."""
        # malloc would keep much of what the parts of a converted layer took, in every thread.
        small = stored.nbytes < PAGES_FROM
        flat = torch.empty(stored.nbytes, dtype=torch.uint8) if small else map_pages(stored.nbytes)
        self.read_into(stored, flat)
        return flat.view(stored.dtype).view(stored.shape)

    def read_into(self, stored: StoredTensor, target: torch.Tensor) -> None:
        """Fill `target`, contiguous uint8 host memory `[nbytes]`, and let the page cache forget it.

        Raises ModelRefusedError if the file was shortened meanwhile, OSError if it cannot be read.
        """
        assert target.numel() == stored.nbytes
        descriptor = self._descriptors[stored.path]
        view = target.numpy().data
        done = 0
        while done < stored.nbytes:
            piece = view[done : done + READ_AT_ONCE]
            got = os.preadv(descriptor, [piece], stored.offset + done)
            if got == 0:
                raise ModelRefusedError(f"{stored.path} has become shorter while it was read")
            done += got
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, stored.offset, stored.nbytes, os.POSIX_FADV_DONTNEED)

    def file_bytes(self, path: Path) -> int:
        return os.fstat(self._descriptors[path]).st_size

    def identity(self) -> list[str]:
        """What tells these files from others: name, size and time of the last change."""
        stats = [(path, os.fstat(fd)) for path, fd in self._descriptors.items()]
        return [f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}

    def _open(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ModelRefusedError(f"cannot open {path}: {error.strerror}") from error
        self._descriptors[path] = descriptor
        for stored in _read_header(descriptor, path):
            self.tensors[stored.key] = stored


def open_checkpoint(source: ModelSource, explicit: str | None = None) -> CheckpointFiles:
    """The safetensors files of a folder or of a hub repository, which is downloaded if need be.

    `explicit` is a file or index that the model's config names. Raises ModelRefusedError.
    """
    names = [explicit] if explicit else [SINGLE, INDEX]
    folder = Path(source.path)
    if not folder.is_dir():
        folder = _download(source, names)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ModelRefusedError(
            f"{source.path} holds neither {' nor '.join(names)}; other formats are not read. "
            "Convert it once with model.save_pretrained(folder)."
        )
    if not found.name.endswith(".json"):
        return CheckpointFiles([found])
    shards = _read_index(found)
    if not Path(source.path).is_dir():
        _download(source, shards)
    if lacking := sorted(name for name in shards if not (folder / name).is_file()):
        raise ModelRefusedError(
            f"{source.path} lacks {len(lacking)} of the {len(shards)} files its index names: "
            f"{lacking[0]}{', ...' if len(lacking) > 1 else ''}; copy or download it again"
        )
    return CheckpointFiles([folder / name for name in shards])


def _download(source: ModelSource, names: list[str]) -> Path:
    try:
        return Path(snapshot_download(source.path, revision=source.revision, allow_patterns=names))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise ModelRefusedError(f"cannot download the model {source.path}: {reason}") from error


def _read_index(path: Path) -> list[str]:
    try:
        return sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefusedError(
            f"{path} is no index of safetensors files; copy or download it again"
        ) from error


def _read_header(descriptor: int, path: Path) -> list[StoredTensor]:
    """What the file holds, checked against its length."""
    torn = f"{path} is torn or no safetensors file; copy or download it again"
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or 8 + length > size:
        raise ModelRefusedError(torn)
    try:
        header: dict[str, Any] = json.loads(os.pread(descriptor, length, 8))
        header.pop("__metadata__", None)
        found = [_entry(key, path, 8 + length, entry) for key, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefusedError(torn) from error
    end = max((stored.offset + stored.nbytes for stored in found), default=8 + length)
    if end != size:
        raise ModelRefusedError(
            f"{path} is torn: it has {size:,} bytes where its header says {end:,}; "
            "copy or download it again"
        )
    return found


def _entry(key: str, path: Path, data: int, entry: dict[str, Any]) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise ModelRefusedError(f"{key} in {path} has the dtype {entry['dtype']}, which is not run")
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if end - begin != prod(shape) * dtype.itemsize:
        raise ValueError(f"{key} has another size than its shape")
    return StoredTensor(key, path, data + begin, end - begin, dtype, shape)
