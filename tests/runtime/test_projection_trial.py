"""What feeds keys and values is found by trial; what cannot be projected exactly is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from tests.parity.families import RUN
from tests.runtime.projected import CPU, SelfContained, cut_tiny, projection_of, tokens_of
from tests.runtime.test_inspection import change_forward
from tightrun.runtime.model import CutModel, LayerCall
from tightrun.runtime.projection_trial import find_projection

HIDDEN, KV = 64, 32


def reason_of(cut: CutModel) -> str:
    projection, reason = find_projection(cut, CPU)
    assert projection is None
    return reason


def swap_kwargs(
    patch: pytest.MonkeyPatch, owner: Any, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Let `owner.forward` be called with changed keyword arguments."""
    forward = owner.forward

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **change(kwargs))

    patch.setattr(owner, "forward", changed)


@pytest.mark.parametrize(
    ("family", "weights"),
    [
        ("llama", 2 * HIDDEN * KV),
        ("qwen3", 2 * HIDDEN * KV),
        ("opt", 2 * HIDDEN * HIDDEN),
        ("gpt2", 3 * HIDDEN * HIDDEN),
        ("deepseek_v3", HIDDEN * (16 + 8) + 16 * 4 * (16 + 16)),
    ],
)
def test_only_what_feeds_key_and_value_counts_as_work(family: str, weights: int) -> None:
    projection = projection_of(cut_tiny(*RUN[family]))
    assert [projection.flops_per_token(i) for i in range(3)] == [2 * weights] * 3
    assert (projection.width, projection.dtype) == (HIDDEN, torch.float32)


@torch.inference_mode()
def test_of_a_query_that_takes_any_number_of_heads_one_is_rotated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = cut_tiny(*RUN["llama"])
    projection = projection_of(cut)
    rotate = modeling_llama.apply_rotary_pos_emb
    heads = []

    def note(query: torch.Tensor, key: torch.Tensor, *tables: torch.Tensor) -> Any:
        heads.append((query.shape[1], key.shape[1]))
        return rotate(query, key, *tables)

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", note)
    now, older = tokens_of([range(4)]), tokens_of([range(4, 9)])
    for batch in (now, older):
        cut.prelude(batch)

    def again(call: LayerCall, _states: torch.Tensor) -> None:
        projection.project(call, torch.zeros(5, HIDDEN), older)

    projection.watch(again)
    cut.answer_attention(SelfContained([4]))
    cut.run_layer(0, now)
    projection.watch(None)
    assert heads == [(1, 2), (4, 2)]


def test_a_layer_of_known_structure_is_only_tried_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = cut_tiny(*RUN["llama"])
    runs: Counter[int] = Counter()

    def count(self: Any, original: Any, hidden: torch.Tensor) -> Any:
        runs[self.layer_idx] += 1
        return original(hidden)

    change_forward(monkeypatch, LlamaAttention, count)
    projection_of(cut)
    both_batches, without_skipping, as_known = 2, 1, 1
    assert runs[0] > runs[1] == runs[2] == both_batches + without_skipping + as_known


def test_a_key_matrix_of_zeros_in_the_first_layer_is_not_taken_for_unused() -> None:
    cut = cut_tiny(*RUN["llama"])
    first: Any = cut.layers[0]
    nn.init.zeros_(first.self_attn.k_proj.weight)
    projection = projection_of(cut)
    assert projection.flops_per_token(1) == 2 * 2 * HIDDEN * KV


def test_a_layer_that_transforms_its_arguments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = cut_tiny(*RUN["llama"])

    def copy(kwargs: dict[str, Any]) -> dict[str, Any]:
        cos, sin = kwargs["position_embeddings"]
        return kwargs | {"position_embeddings": (cos.clone(), sin.clone())}

    swap_kwargs(monkeypatch, LlamaDecoderLayer, copy)
    reason = reason_of(cut)
    assert reason.startswith(
        "keys and values of LlamaForCausalLM cannot be projected again from stored activations: "
        "the attention of layer 0 does not run for other tokens"
    )


def test_an_attention_that_mixes_tokens_before_its_keys_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = cut_tiny(*RUN["llama"])
    change_forward(
        monkeypatch, LlamaAttention, lambda _self, original, hidden: original(hidden.cumsum(1))
    )
    assert "layer 0 gives others than in its normal call" in reason_of(cut)


def test_keys_that_follow_from_more_than_the_states_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = cut_tiny(*RUN["llama"])

    def tell(self: Any, original: Any, hidden: torch.Tensor) -> Any:
        self.self_attn.extra = hidden.sum()
        return original(hidden)

    change_forward(monkeypatch, LlamaDecoderLayer, tell)
    change_forward(
        monkeypatch,
        LlamaAttention,
        lambda self, original, hidden: original(hidden + self.extra),
    )
    assert "gives others than in its normal call" in reason_of(cut)


def test_an_attention_without_hidden_states_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = cut_tiny(*RUN["llama"])
    forward = LlamaAttention.forward
    monkeypatch.setattr(
        LlamaAttention, "forward", lambda self, rows, **kwargs: forward(self, rows, **kwargs)
    )
    for layer in cut.layers:
        attention: Any = layer
        attention.self_attn.register_forward_pre_hook(
            lambda _m, _args, kwargs: ((), {"rows": kwargs.pop("hidden_states"), **kwargs}),
            with_kwargs=True,
            prepend=True,
        )
    assert "the attention of layer 0 takes no hidden states" in reason_of(cut)


def test_states_of_several_widths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = cut_tiny(*RUN["llama"])
    last: Any = cut.layers[2].self_attn
    last.register_forward_pre_hook(
        lambda _m, args, kwargs: (
            args, kwargs | {"hidden_states": nn.functional.pad(kwargs["hidden_states"], (0, 8))}
        ),
        with_kwargs=True,
        prepend=True,
    )  # fmt: skip
    change_forward(
        monkeypatch, LlamaAttention, lambda _self, original, hidden: original(hidden[..., :HIDDEN])
    )
    assert "states of several widths" in reason_of(cut)


def test_who_answered_attention_calls_before_answers_them_again() -> None:
    cut = cut_tiny(*RUN["llama"])

    def mine(_call: LayerCall, *_others: Any) -> torch.Tensor:
        raise NotImplementedError

    cut.answer_attention(mine)
    projection_of(cut)
    assert cut.answer_attention(mine) is mine


def test_a_layers_weights_need_be_there_only_while_it_runs() -> None:
    cut = cut_tiny(*RUN["mixtral"])
    order: list[int] = []

    modules = [[*layer.modules()] for layer in cut.layers]
    weights = [[dict(m._parameters) for m in layer] for layer in modules]

    def take_away(index: int) -> None:
        for module in modules[index]:
            module._parameters.update(dict.fromkeys(module._parameters))

    @contextmanager
    def loaded(index: int) -> Iterator[None]:
        order.append(index)
        for module, parameters in zip(modules[index], weights[index], strict=True):
            module._parameters.update(parameters)
        yield
        take_away(index)

    for index in range(3):
        take_away(index)
    projection, reason = find_projection(cut, CPU, loaded)
    assert projection is not None, reason
    assert order == [0, 1, 2]
