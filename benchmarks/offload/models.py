"""The models of the parts, each a Llama of other proportions."""

from __future__ import annotations

from pathlib import Path

from transformers import LlamaConfig

from benchmarks.jobs import FULL, ModelSize
from benchmarks.random_model import ensure_model

SLICES = FULL.model
SLICES_QUICK = ModelSize(512, 16, 8, 2, 1408, 2_000)
RECOMPUTE = ModelSize(1024, 12, 16, 16, 2816, 2_000)
# Few KV heads: the cache of 256 sequences has to fit beside two layers in a gibibyte.
DISK = ModelSize(2048, 36, 32, 2, 8192, 8_000)
DISK_QUICK = ModelSize(1024, 24, 16, 2, 4096, 2_000)


def llama_config(size: ModelSize, context: int = 1024) -> LlamaConfig:
    """A Llama of these sizes whose embedding and head are two matrices."""
    return LlamaConfig(
        vocab_size=size.vocab,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=None,
        pad_token_id=size.vocab - 2,
        eos_token_id=size.vocab - 1,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )


def llama(size: ModelSize, seed: int, workdir: Path) -> Path:
    """The folder of a Llama of these sizes below `workdir`, made if it is not there yet."""
    kind = f"llama-{size.parameters / 1e6:.0f}m-{size.layers}-layers-{size.kv_heads}-kv-heads"
    return ensure_model(workdir / f"{kind}-seed-{seed}", llama_config(size), seed)


def slab_bytes(size: ModelSize) -> int:
    """Bytes of one layer's weights in bfloat16."""
    return 2 * (size.dense_parameters // size.layers + 2 * size.hidden)


def kv_bytes_per_token_layer(size: ModelSize) -> int:
    """Bytes of a token's keys and values in one layer, in bfloat16."""
    return 2 * 2 * size.kv_heads * size.head_dim
