"""From a checkpoint to a model in memory, in safetensors only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from tightrun.runtime.model import ModelRefusedError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which checkpoint: a local folder or a hub id, and how it is to be read."""

    path: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False


def load_config(source: ModelSource) -> PretrainedConfig:
    """The model's config; raises ModelRefusedError with the remedy if there is none to be had."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source.path, revision=source.revision, trust_remote_code=source.trust_remote_code
        )
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        reason = str(error).split("\n")[0]
        raise ModelRefusedError(
            f"cannot read the model's config at {source.path}: {reason}"
        ) from error
    if config.is_encoder_decoder:
        raise ModelRefusedError(
            f"{source.path} is an encoder-decoder ({config.model_type}); only decoders are run"
        )
    return config


def checkpoint_bytes(source: ModelSource) -> int | None:
    """Bytes of a local checkpoint's safetensors files; None for one on the hub."""
    folder = Path(source.path)
    if not folder.is_dir():
        return None
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def load_model(source: ModelSource, config: PretrainedConfig, device: torch.device) -> nn.Module:
    """The whole model on the device, in evaluation mode. Raises ModelRefusedError."""
    folder = Path(source.path)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelRefusedError(
            f"{source.path} holds no .safetensors file; pickle checkpoints are not read. "
            "Convert it once with model.save_pretrained(folder)."
        )
    try:
        auto: Any = AutoModelForCausalLM
        model, found = auto.from_pretrained(
            source.path,
            config=config,
            revision=source.revision,
            dtype=compute_dtype(source.dtype, config, device),
            use_safetensors=True,
            trust_remote_code=source.trust_remote_code,
            device_map={"": device} if device.type != "cpu" else None,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise ModelRefusedError(f"cannot load the model at {source.path}: {reason}") from error
    if missing := sorted(found["missing_keys"]):
        # transformers fills them with random numbers and goes on.
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelRefusedError(
            f"the checkpoint at {source.path} lacks {len(missing):,} of the tensors of "
            f"{type(model).__name__}: {named}"
        )
    model.eval()
    model.requires_grad_(False)
    return cast(nn.Module, model)


def compute_dtype(asked: str, config: PretrainedConfig, device: torch.device) -> torch.dtype:
    """The dtype to compute in; `auto` is what the checkpoint was stored in."""
    if asked != "auto":
        return DTYPES[asked]
    stored = getattr(config.get_text_config(decoder=True), "dtype", None) or torch.float32
    if stored == torch.float16 and device.type == "cpu":
        # float16 products have no fast path on most CPUs; bfloat16 keeps the range.
        return torch.bfloat16
    return stored
