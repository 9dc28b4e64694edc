"""The shapes that are measured, with random weights, and whether this machine can hold them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from transformers import LlamaConfig, OPTConfig, PretrainedConfig, Qwen2Config

from benchmarks.random_model import shards

GIB = 2**30
HOST_SHARE = 0.8
DISK_SPARE = 2 * GIB


@dataclass(frozen=True, slots=True)
class Shape:
    """A model by its config, and how many rows of a workload it is given."""

    config: Callable[[], PretrainedConfig]
    rows: int
    flexllmgen: str | None = None


def _llama_2_13b() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=5120,
        intermediate_size=13_824,
        num_hidden_layers=40,
        num_attention_heads=40,
        num_key_value_heads=40,
        max_position_embeddings=4096,
        **_common(32_000, "LlamaForCausalLM"),
    )


def _llama_3_8b() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        **_common(128_256, "LlamaForCausalLM"),
    )


def _opt_30b() -> OPTConfig:
    return OPTConfig(
        vocab_size=50_272,
        hidden_size=7168,
        word_embed_proj_dim=7168,
        ffn_dim=28_672,
        num_hidden_layers=48,
        num_attention_heads=56,
        max_position_embeddings=2048,
        **_common(50_272, "OPTForCausalLM", tied=True),
    )


def _qwen2_5_32b() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=152_064,
        hidden_size=5120,
        intermediate_size=27_648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
        max_position_embeddings=32_768,
        **_common(152_064, "Qwen2ForCausalLM"),
    )


def _common(vocab: int, kind: str, tied: bool = False) -> dict[str, Any]:
    ids = {"bos_token_id": None, "pad_token_id": vocab - 2, "eos_token_id": vocab - 1}
    return {**ids, "tie_word_embeddings": tied, "architectures": [kind], "dtype": "bfloat16"}


SHAPES = {
    "llama-2-13b": Shape(_llama_2_13b, rows=96),
    "llama-3-8b": Shape(_llama_3_8b, rows=256),
    "opt-30b": Shape(_opt_30b, rows=48, flexllmgen="facebook/opt-30b"),
    "qwen2.5-32b": Shape(_qwen2_5_32b, rows=128),
}


def weight_bytes(config: PretrainedConfig) -> int:
    """Bytes of the checkpoint in bfloat16."""
    return 2 * sum(size.numel() for _, named in shards(config) for size in named.values())


def why_not(weights: int, kv: int, workdir: Path) -> str | None:
    """Why this machine cannot hold a model of `weights` bytes and `kv` bytes of its rows' KV in
    host memory, with the sum; None if it can. The checkpoint needs as much of the disk."""
    available = psutil.virtual_memory().available
    if weights + kv > HOST_SHARE * available:
        return (
            f"weights {weights / GIB:.0f} GiB + KV {kv / GIB:.0f} GiB exceed {HOST_SHARE:.0%} of "
            f"the {available / GIB:.0f} GiB of host memory that are available"
        )
    free = shutil.disk_usage(workdir).free
    if weights + DISK_SPARE > free:
        return f"the checkpoint takes {weights / GIB:.0f} GiB; {workdir} has {free / GIB:.0f} left"
    return None


def kv_bytes(config: PretrainedConfig, tokens: int) -> int:
    """Bytes of the KV of so many tokens, in bfloat16."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    per_token = 2 * 2 * config.num_hidden_layers * kv_heads * (config.hidden_size // heads)
    return int(per_token * tokens)
