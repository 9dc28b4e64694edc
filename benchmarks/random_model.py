"""Checkpoints of any size with random weights, a layer at a time: memory holds one shard only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PretrainedConfig

from benchmarks.jobs import write_tokenizer

INDEX = "model.safetensors.index.json"
DONE = "made.json"
TOKENIZER = "tokenizer"
SPREAD = 0.02
_LAYER = re.compile(r"\.(\d+)\.")


def ensure_model(
    folder: Path, config: PretrainedConfig, seed: int, device: str = "cpu", alike: bool = False
) -> Path:
    """The checkpoint in the config's `dtype` (bfloat16 where it names none) with its tokenizer
    under `folder`, made if it is not there yet.

    `alike` repeats one layer's weights in all layers: the work is the same, and for models of
    many gigabytes the making is quicker.
    """
    told = {"seed": seed, "alike": alike, "config": config.to_diff_dict()}
    found = folder / DONE
    whole = found.is_file() and (folder / TOKENIZER).is_dir()
    if whole and json.loads(found.read_text()) == _plain(told):
        return folder
    partial = folder.with_name(f".{folder.name}")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    # In a folder of its own: beside a config, transformers picks some families' own class for it.
    (partial / TOKENIZER).mkdir()
    write_tokenizer(partial / TOKENIZER, config.vocab_size)
    config.save_pretrained(partial)
    _write_shards(partial, config, seed, torch.device(device), alike)
    (partial / DONE).write_text(json.dumps(told, default=str))
    partial.rename(folder)
    return folder


def checkpoint_bytes(folder: Path) -> int:
    """Bytes of all weights of a checkpoint made here."""
    total: int = json.loads((folder / INDEX).read_text())["metadata"]["total_size"]
    return total


def _plain(told: dict[str, Any]) -> Any:
    return json.loads(json.dumps(told, default=str))


def _write_shards(
    folder: Path, config: PretrainedConfig, seed: int, device: torch.device, alike: bool
) -> None:
    generator = torch.Generator(device).manual_seed(seed)
    places: dict[str, str] = {}
    total = 0
    layer: dict[str, torch.Tensor] = {}
    dtype = config.dtype or torch.bfloat16
    for name, shapes in shards(config):
        if alike and layer and name != "outer":
            named = dict(zip(shapes, layer.values(), strict=True))
        else:
            named = {key: _drawn(key, size, generator, dtype) for key, size in shapes.items()}
        if name != "outer":
            layer = named
        file = f"{name}.safetensors"
        save_file(named, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(named, file)
        total += sum(tensor.nbytes for tensor in named.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index))


def shards(config: PretrainedConfig) -> Iterator[tuple[str, dict[str, torch.Size]]]:
    """(file name, shapes by parameter) for every layer, then for what is outside of them."""
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.bfloat16)
    layers: dict[int, dict[str, torch.Size]] = {}
    outer: dict[str, torch.Size] = {}
    for key, parameter in model.named_parameters():  # a tied one is named once
        found = _LAYER.search(key)
        group = outer if found is None else layers.setdefault(int(found[1]), {})
        group[key] = parameter.shape
    for number, named in sorted(layers.items()):
        yield f"layer-{number:03d}", named
    yield "outer", outer


def _drawn(
    name: str, size: torch.Size, generator: torch.Generator, dtype: torch.dtype
) -> torch.Tensor:
    """Norms are one, biases nothing, matrices normal as at the beginning of training."""
    if len(size) == 1:
        fill = torch.zeros if name.endswith("bias") else torch.ones
        return fill(size, dtype=dtype)
    drawn = torch.empty(size, dtype=dtype, device=generator.device)
    return drawn.normal_(0.0, SPREAD, generator=generator).cpu()
