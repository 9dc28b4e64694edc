"""A model is learned by running it, and refused where cutting it would change what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from tests.parity.families import LONGROPE
from tightrun.runtime.inspection import InspectedModel, inspect_model
from tightrun.runtime.model import ModelRefusedError

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "pad_token_id": None,
}
ABSENT = object()
ATTENTION = 64 * 64 + 2 * 64 * 32 + 64 * 64


def tiny(model_type: str = "llama", **sizes: Any) -> nn.Module:
    torch.manual_seed(0)
    config = {key: value for key, value in (SIZES | sizes).items() if value is not ABSENT}
    auto: Any = AutoModelForCausalLM
    model: nn.Module = auto.from_config(AutoConfig.for_model(model_type, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.15)
    return model.eval()


def inspect(model: nn.Module) -> InspectedModel:
    return inspect_model(model, torch.device("cpu"))


def refusal(model: nn.Module) -> str:
    with pytest.raises(ModelRefusedError) as refused:
        inspect(model)
    return str(refused.value)


def change_forward(patch: pytest.MonkeyPatch, owner: Any, change: Callable[..., Any]) -> None:
    """Replace `owner.forward` by `change(module, forward, hidden_states, **kwargs)`."""
    forward = owner.forward

    def changed(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        def original(hidden: torch.Tensor) -> Any:
            return forward(self, hidden, *args, **kwargs)

        return change(self, original, hidden_states)

    patch.setattr(owner, "forward", changed)


def test_the_shape_is_what_the_attention_calls_show() -> None:
    shape = inspect(tiny()).shape
    [first, _] = shape.layers
    assert (first.q_heads, first.kv_heads, first.key_dim, first.value_dim) == (4, 2, 16, 16)
    assert first.dense_parameters == ATTENTION + 3 * 64 * 96
    assert (shape.hidden, shape.vocab, shape.context, shape.element_bytes) == (64, 100, 512, 4)
    assert shape.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert shape.widest == 96
    assert shape.head_parameters == 64 * 100


def test_every_parameter_is_counted_once() -> None:
    model = tiny(tie_word_embeddings=True)
    parameters = sum(p.numel() for p in model.parameters())
    shape = inspect(model).shape
    assert (shape.parameters, shape.weight_bytes) == (parameters, 4 * parameters)


def test_of_a_mixture_only_the_chosen_experts_count_as_work() -> None:
    shape = inspect(tiny("mixtral", num_local_experts=8, num_experts_per_tok=2)).shape
    router, expert = 8 * 64, 3 * 64 * 96
    assert shape.layers[0].dense_parameters == ATTENTION + router + 2 * expert


def test_values_may_be_narrower_than_keys() -> None:
    model = tiny(
        "deepseek_v3", head_dim=ABSENT, num_key_value_heads=4, moe_intermediate_size=32,
        n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, q_lora_rank=24,
        kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16,
    )  # fmt: skip
    first = inspect(model).shape.layers[0]
    assert (first.key_width, first.value_width) == (4 * 24, 4 * 16)


def test_chunked_attention_ends_the_context_and_says_so() -> None:
    model = tiny(
        "llama4_text", num_local_experts=2, num_experts_per_tok=1, intermediate_size_mlp=64,
        attention_chunk_size=32, attn_temperature_tuning=False,
    )  # fmt: skip
    inspected = inspect(model)
    assert inspected.shape.context == 32
    assert "contexts end at 32 tokens" in inspected.notes[0]


def test_two_rotary_tables_are_told_of() -> None:
    model_type, sizes = LONGROPE
    [note] = inspect(tiny(model_type, **sizes)).notes
    assert "may pass 64 tokens" in note


def test_a_model_without_restrictions_has_no_notes() -> None:
    assert inspect(tiny()).notes == ()


def test_mixing_tokens_outside_of_the_attention_call_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ignore_the_answer(_self: Any, original: Any, hidden: torch.Tensor) -> Any:
        _, weights = original(hidden)
        return hidden.cumsum(1), weights

    change_forward(monkeypatch, LlamaAttention, ignore_the_answer)
    assert "its logits differ" in refusal(tiny())


def test_other_logits_when_cut_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def notice(self: Any, original: Any, hidden: torch.Tensor) -> Any:
        cut = self.config._attn_implementation == "tightrun"
        out, weights = original(hidden)
        return (1.1 if cut else 1.0) * out, weights

    change_forward(monkeypatch, LlamaAttention, notice)
    assert "its logits differ" in refusal(tiny())


def test_a_memory_of_earlier_calls_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(_self: Any, original: Any, hidden: torch.Tensor) -> Any:
        shifted = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)
        return original(hidden + shifted)

    change_forward(monkeypatch, LlamaDecoderLayer, remember)
    assert "its logits differ" in refusal(tiny())


def test_a_layer_that_attends_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    change_forward(monkeypatch, LlamaAttention, lambda _self, f, x: (f(f(x)[0])[0], None))
    assert "reached transformers' attention interface 2 times" in refusal(tiny())


def test_a_layer_that_attends_by_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    change_forward(monkeypatch, LlamaAttention, lambda _self, _f, x: (x.cumsum(1), None))
    said = refusal(tiny())
    assert "layer 0 (LlamaDecoderLayer) reached transformers' attention interface 0 times" in said


def test_a_model_that_does_not_run_is_refused_with_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_self: Any, _original: Any, _hidden: torch.Tensor) -> Any:
        raise RuntimeError("no such kernel")

    change_forward(monkeypatch, LlamaAttention, fail)
    assert refusal(tiny()) == "LlamaForCausalLM fails on a tiny batch: no such kernel"


def test_a_model_without_a_layer_list_is_refused() -> None:
    model = tiny()
    model.model.layers = model.model.layers[:1]  # type: ignore[union-attr, index]
    assert "has no list of 2 decoder layers to cut it at" in refusal(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_16_bits_are_held_to_16_bits(dtype: torch.dtype) -> None:
    assert inspect(tiny().to(dtype)).dtype == dtype
