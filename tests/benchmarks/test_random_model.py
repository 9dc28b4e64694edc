"""Checkpoints written a layer at a time are whole, and the same for a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
)

from benchmarks.gpu.models import SHAPES, kv_bytes, weight_bytes
from benchmarks.jobs import ModelSize, text_of
from benchmarks.offload.models import llama_config, slab_bytes
from benchmarks.random_model import TOKENIZER, checkpoint_bytes, ensure_model

SMALL = {"num_hidden_layers": 2, "vocab_size": 96, "dtype": "bfloat16", "pad_token_id": 94,
         "eos_token_id": 95, "bos_token_id": None}  # fmt: skip
HEADS = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**HEADS, num_key_value_heads=2, tie_word_embeddings=False, **SMALL),
    "opt": OPTConfig(hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_attention_heads=4,
                     max_position_embeddings=64, **SMALL),
    "qwen2": Qwen2Config(**HEADS, num_key_value_heads=2, tie_word_embeddings=False, **SMALL),
}  # fmt: skip


@pytest.mark.parametrize("family", CONFIGS)
def test_every_weight_is_there_and_a_word_is_its_token(family: str, tmp_path: Path) -> None:
    folder = ensure_model(tmp_path / family, CONFIGS[family], 0)
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(folder / TOKENIZER).encode(text_of([5, 90, 7])) == [
        5,
        90,
        7,
    ]


def test_the_index_counts_every_byte(tmp_path: Path) -> None:
    folder = ensure_model(tmp_path / "model", CONFIGS["llama"], 0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert checkpoint_bytes(folder) == 2 * model.num_parameters()
    assert weight_bytes(CONFIGS["llama"]) == checkpoint_bytes(folder)


def test_one_seed_gives_the_same_weights_and_another_others(tmp_path: Path) -> None:
    def first(name: str, seed: int) -> torch.Tensor:
        folder = ensure_model(tmp_path / name, CONFIGS["llama"], seed)
        model = AutoModelForCausalLM.from_pretrained(folder)
        return model.model.layers[1].self_attn.q_proj.weight

    assert torch.equal(first("a", 0), first("b", 0))
    assert not torch.equal(first("a", 0), first("c", 1))


def test_layers_that_are_to_be_alike_are(tmp_path: Path) -> None:
    folder = ensure_model(tmp_path / "model", CONFIGS["llama"], 0, alike=True)
    layers = AutoModelForCausalLM.from_pretrained(folder).model.layers
    assert torch.equal(layers[0].mlp.up_proj.weight, layers[1].mlp.up_proj.weight)


def test_a_model_that_is_there_is_used_again_and_one_of_another_seed_made_anew(
    tmp_path: Path,
) -> None:
    folder = ensure_model(tmp_path / "model", CONFIGS["llama"], 0)
    shard = folder / "layer-000.safetensors"
    before = shard.stat().st_mtime_ns
    ensure_model(folder, CONFIGS["llama"], 0)
    assert shard.stat().st_mtime_ns == before
    ensure_model(folder, CONFIGS["llama"], 1)
    assert shard.stat().st_mtime_ns != before


def test_the_bytes_of_a_layer_are_those_of_its_weights() -> None:
    size = ModelSize(32, 2, 4, 2, 48, 96)
    outer = 2 * (2 * 96 * 32 + 32)
    assert 2 * slab_bytes(size) + outer == weight_bytes(llama_config(size))


@pytest.mark.parametrize(
    ("model", "billions"),
    [("llama-2-13b", 13.0), ("llama-3-8b", 8.0), ("opt-30b", 30.0), ("qwen2.5-32b", 32.8)],
)
def test_the_shapes_for_a_gpu_have_the_sizes_of_their_names(model: str, billions: float) -> None:
    assert weight_bytes(SHAPES[model].config()) / 2e9 == pytest.approx(billions, rel=0.02)


def test_kv_of_a_llama_3_8b_takes_128_kib_a_token() -> None:
    assert kv_bytes(SHAPES["llama-3-8b"].config(), 1) == 128 * 1024
