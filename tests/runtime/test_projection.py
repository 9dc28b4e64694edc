"""Keys and values projected from stored states are those that the layer made of them at first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.parity.families import LONGROPE, RUN
from tests.runtime.projected import (
    SelfContained,
    cut_tiny,
    distance,
    projection_of,
    run_layers,
    some_of,
    tokens_of,
)
from tightrun.runtime.batch import Batch
from tightrun.runtime.model import CutModel, LayerCall
from tightrun.runtime.projection import Projection

OLD = [range(0, 31), range(0, 7), range(40, 52)]
NOW = [range(31, 32), range(7, 13), range(52, 53)]


class Work:
    """A pass that stores its states, then one over other rows that projects some of them."""

    def __init__(
        self,
        cut: CutModel,
        projection: Projection,
        old: list[range] = OLD,
        padding_at: int | None = None,
    ) -> None:
        self.cut, self.projection, self.padding_at = cut, projection, padding_at
        self.first = tokens_of(old, padding_at)
        self.answer = SelfContained(self.lengths(old))
        self.states: dict[int, torch.Tensor] = {}
        self.flops: dict[int, int] = {}

        def keep(call: LayerCall, states: torch.Tensor) -> None:
            self.states[call.layer] = states.clone()

        projection.watch(keep)
        run_layers(cut, self.first, self.answer)
        projection.watch(None)
        count = sum(len(x) for x in old)
        self.rows = torch.randperm(count, generator=torch.Generator().manual_seed(2))[: count - 3]

    def lengths(self, sequences: list[range]) -> list[int]:
        return [len(x) for x in sequences] + [1] * (self.padding_at is not None)

    def older(self) -> Batch:
        older = some_of(self.first, self.rows, self.padding_at)
        self.cut.prelude(older)
        return older

    def now(self, batch: Batch | None = None) -> torch.Tensor:
        """The second pass as it is without stored states: its final hidden states."""
        batch = batch or tokens_of(NOW, self.padding_at, seed=6)
        return run_layers(self.cut, batch, SelfContained(self.lengths(NOW)))

    def project(self) -> tuple[dict[int, tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Key and value by layer of some old tokens, and what the second pass came to."""
        older = self.older()
        got: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def again(call: LayerCall, _states: torch.Tensor) -> None:
            with FlopCounterMode(display=False) as counter:
                got[call.layer] = self.projection.project(
                    call, self.states[call.layer][self.rows], older
                )
            self.flops[call.layer] = counter.get_total_flops()

        self.projection.watch(again)
        hidden = self.now()
        self.projection.watch(None)
        return got, hidden

    def worst(self) -> float:
        got, _ = self.project()
        assert len(got) == len(self.cut.layers)
        return max(
            distance(projected, before[layer][:, self.rows])
            for layer, pair in got.items()
            for projected, before in zip(pair, (self.answer.keys, self.answer.values), strict=True)
        )


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[CutModel, Projection]]:
    """Every family once."""
    return {}


@pytest.fixture(params=RUN)
def family(
    request: pytest.FixtureRequest, models: dict[str, tuple[CutModel, Projection]]
) -> tuple[CutModel, Projection]:
    if request.param not in models:
        cut = cut_tiny(*RUN[request.param])
        models[request.param] = cut, projection_of(cut)
    return models[request.param]


@pytest.fixture(scope="module")
def llama() -> tuple[CutModel, Projection]:
    cut = cut_tiny(*RUN["llama"])
    return cut, projection_of(cut)


@torch.inference_mode()
def test_every_family_is_exact(family: tuple[CutModel, Projection]) -> None:
    assert Work(*family).worst() <= 1e-5


@torch.inference_mode()
def test_the_layer_goes_on_as_if_nothing_had_been_projected(
    family: tuple[CutModel, Projection],
) -> None:
    work = Work(*family)
    _, hidden = work.project()
    assert torch.equal(hidden, work.now())


@torch.inference_mode()
def test_the_flops_are_those_that_are_told(family: tuple[CutModel, Projection]) -> None:
    work = Work(*family)
    work.project()
    told = {i: len(work.rows) * work.projection.flops_per_token(i) for i in work.flops}
    assert work.flops == told


@torch.inference_mode()
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "deepseek_v3", "opt", "gpt_oss"])
def test_bfloat16_is_as_close_as_its_rounding(name: str) -> None:
    cut = cut_tiny(*RUN[name], dtype=torch.bfloat16)
    projection = projection_of(cut)
    assert projection.dtype == torch.bfloat16
    assert Work(cut, projection).worst() <= 2.0**-6


@torch.inference_mode()
def test_a_single_token_is_projected(llama: tuple[CutModel, Projection]) -> None:
    work = Work(*llama)
    work.rows = torch.tensor([11])
    assert work.worst() <= 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("padding_at", [None, 64])
def test_padding_chooses_the_rotary_table_and_is_not_projected(padding_at: int | None) -> None:
    cut = cut_tiny(*LONGROPE)
    old = [range(0, 20), range(3, 9)]
    work = Work(cut, projection_of(cut), old, padding_at)
    got, _ = work.project()
    assert got[0][0].shape[1] == len(work.rows)
    assert work.worst() <= 1e-5


@torch.inference_mode()
def test_weights_may_be_elsewhere_at_every_call() -> None:
    cut = cut_tiny(*RUN["deepseek_v3"])
    projection = projection_of(cut)
    work = Work(cut, projection)
    for layer in cut.layers:
        for module in layer.modules():
            for name, old in list(module._parameters.items()):
                if old is not None:
                    module._parameters[name] = nn.Parameter(old.clone(), requires_grad=False)
                    old.fill_(torch.nan)
    assert work.worst() <= 1e-5


@torch.inference_mode()
def test_a_module_with_a_forward_of_its_own_has_it_back_afterwards() -> None:
    cut = cut_tiny(*RUN["qwen3"])
    attention: Any = cut.layers[0].self_attn
    norm = attention.q_norm
    calls = []

    def fused(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return type(norm).forward(norm, x)  # type: ignore[no-any-return]

    projection = projection_of(cut)
    norm.forward = fused
    work = Work(cut, projection)
    calls.clear()
    work.project()
    assert norm.forward is fused
    assert len(calls) == 1
    assert "forward" not in vars(attention.q_proj)


@torch.inference_mode()
def test_nobody_watches_unless_asked_to(llama: tuple[CutModel, Projection]) -> None:
    cut, projection = llama
    seen: list[int] = []
    projection.watch(lambda call, _states: seen.append(call.layer))
    projection.watch(lambda call, _states: seen.append(call.layer))
    work = tokens_of(NOW)
    run_layers(cut, work, SelfContained([len(x) for x in NOW]))
    assert seen == [0, 1, 2]
    projection.watch(None)
    assert not any(m._forward_pre_hooks for layer in cut.layers for m in layer.modules())


@torch.inference_mode()
def test_the_states_are_what_the_attention_receives(llama: tuple[CutModel, Projection]) -> None:
    cut, projection = llama
    seen: list[tuple[torch.Size, torch.Tensor]] = []
    projection.watch(lambda _call, states: seen.append((states.shape, states.clone())))
    batch = tokens_of(NOW)
    cut.prelude(batch)
    assert batch.hidden is not None
    layer: Any = cut.layers[0]
    expected = layer.input_layernorm(batch.hidden)[0]
    run_layers(cut, tokens_of(NOW), SelfContained([len(x) for x in NOW]))
    projection.watch(None)
    assert seen[0][0] == (batch.tokens, projection.width)
    assert torch.equal(seen[0][1], expected)


@torch.inference_mode()
def test_an_error_of_the_watcher_comes_out_and_leaves_no_call_open(
    llama: tuple[CutModel, Projection],
) -> None:
    cut, projection = llama

    def fail(_call: LayerCall, _states: torch.Tensor) -> None:
        raise OSError("the disk is gone")

    projection.watch(fail)
    with pytest.raises(OSError, match="the disk is gone"):
        run_layers(cut, tokens_of(NOW), SelfContained([len(x) for x in NOW]))
    projection.watch(None)
    assert Work(cut, projection).worst() <= 1e-5
