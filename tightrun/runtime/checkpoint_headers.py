"""What is stored in a checkpoint, without its weights: by files that are here, by the headers of a
hub repository, or, where there is nothing but a config, as its model would be stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    SafetensorsParsingError,
)
from torch import nn
from transformers import PretrainedConfig

from tightrun.runtime.checkpoint import ModelSource
from tightrun.runtime.checkpoint_files import (
    DTYPES,
    INDEX,
    SINGLE,
    CheckpointFiles,
    StoredTensor,
    open_checkpoint,
)
from tightrun.runtime.model import ModelRefusedError

# What holds weights, in formats that are read and in those that are not.
WEIGHTS = ("*.safetensors", INDEX, "*.bin", "*.pt", "*.pth", "*.gguf", "*.ckpt")


def open_headers(
    source: ModelSource, config: PretrainedConfig, model: nn.Module
) -> CheckpointFiles:
    """The stored tensors of a local folder or of a hub repository, of which no weight is fetched.

    `model` is that of the config, with its parameters on meta: what a folder without any weights
    is taken to store. Raises ModelRefusedError as `open_checkpoint` does.
    """
    explicit = getattr(config, "transformers_weights", None)
    folder = Path(source.path)
    if folder.is_dir():
        if explicit or any(next(folder.glob(name), None) for name in WEIGHTS):
            return open_checkpoint(source, explicit)
        return _holding(imagined(model, config))
    here = _downloaded(source)
    if here is not None:
        return open_checkpoint(ModelSource(str(here)), explicit)
    return _holding(_remote(source))


def imagined(model: nn.Module, config: PretrainedConfig) -> list[StoredTensor]:
    """The tensors that the model would be saved as, one after the other in a single file."""
    stored = getattr(config.get_text_config(decoder=True), "dtype", None)
    tied = getattr(model, "all_tied_weights_keys", {})
    found = []
    at = 0
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        dtype = stored if isinstance(stored, torch.dtype) else tensor.dtype
        if not tensor.is_floating_point():
            dtype = tensor.dtype
        nbytes = tensor.numel() * dtype.itemsize
        found.append(StoredTensor(name, Path(SINGLE), at, nbytes, dtype, tuple(tensor.shape)))
        at += nbytes
    return found


def _holding(tensors: list[StoredTensor]) -> CheckpointFiles:
    files = CheckpointFiles([])
    files.tensors = {stored.key: stored for stored in tensors}
    return files


def _downloaded(source: ModelSource) -> Path | None:
    """The folder of a hub repository that is here already, weights and all."""
    try:
        folder = Path(
            snapshot_download(source.path, revision=source.revision, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    if (folder / SINGLE).is_file():
        return folder
    if not (folder / INDEX).is_file():
        return None
    try:
        open_checkpoint(ModelSource(str(folder))).close()
    except ModelRefusedError:
        return None
    return folder


def _remote(source: ModelSource) -> list[StoredTensor]:
    try:
        found: Any = get_safetensors_metadata(source.path, revision=source.revision)
    except (
        HfHubHTTPError,
        HFValidationError,
        NotASafetensorsRepoError,
        SafetensorsParsingError,
        LocalEntryNotFoundError,
        OSError,
    ) as error:
        reason = str(error).split("\n")[0]
        raise ModelRefusedError(
            f"cannot read the headers of {source.path}: {reason}. Where there is no network, "
            f"download it elsewhere with `hf download {source.path}` and give its folder."
        ) from error
    return [
        _entry(source, name, key, info)
        for name, file in found.files_metadata.items()
        for key, info in file.tensors.items()
    ]


def _entry(source: ModelSource, name: str, key: str, info: Any) -> StoredTensor:
    if info.dtype not in DTYPES:
        raise ModelRefusedError(
            f"{key} in {name} of {source.path} has the dtype {info.dtype}, which is not run"
        )
    begin, end = info.data_offsets
    return StoredTensor(key, Path(name), begin, end - begin, DTYPES[info.dtype], tuple(info.shape))
