"""A model's work is timed as it is done: layers without attention, attention alone, the head."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from tests.parity.families import RUN
from tests.runtime.projected import CPU, cut_tiny
from tightrun.policies.hardware import WorkTimes
from tightrun.policies.shape import ModelShape
from tightrun.runtime import stopwatch, work_probe
from tightrun.runtime.attention import AttentionKernel, AttentionSpec, TorchAttention
from tightrun.runtime.attention_probe import AttentionProbe
from tightrun.runtime.batch import Batch
from tightrun.runtime.host_probe import host_seconds
from tightrun.runtime.inspection import probe_prompts, shape_of
from tightrun.runtime.kv_layout import LayerCache
from tightrun.runtime.stopwatch import SLOW_S, seconds_of
from tightrun.runtime.work_probe import TimedModel, probe_work, typical_layer

PAUSE_S = 0.25


class Pausing(TorchAttention):
    """Takes its time for more than a single key, and keeps the batches it takes it for."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def attend(
        self, cache: LayerCache, query: torch.Tensor, batch: Batch, spec: AttentionSpec
    ) -> torch.Tensor:
        if batch.work().attended > 1:
            self.batches.append(batch)
            time.sleep(PAUSE_S)
        return super().attend(cache, query, batch, spec)


def timed(family: str, kernel: AttentionKernel | None = None) -> TimedModel:
    cut = cut_tiny(*RUN[family])
    config = cut.model.config  # type: ignore[union-attr]
    with torch.inference_mode():
        shape = shape_of(cut, probe_prompts(200, CPU)[0], config)

    def loaded(_layer: int) -> AbstractContextManager[None]:
        return nullcontext()

    return TimedModel(
        cut, shape, torch.float32, CPU, kernel or TorchAttention(), 16, loaded, packed=False
    )


@pytest.fixture(scope="module")
def paused() -> tuple[TimedModel, WorkTimes]:
    model = timed("llama", Pausing())
    return model, probe_work(model)


def test_every_number_of_rows_is_timed(paused: tuple[TimedModel, WorkTimes]) -> None:
    _, work = paused
    assert [rows for rows, _ in work.layer_s] == list(work_probe.ROWS)
    assert [rows for rows, _ in work.head_s] == list(work_probe.LOGIT_ROWS)
    assert min(s for _, s in (*work.layer_s, *work.head_s)) > 0


def test_attention_is_no_part_of_a_layer(paused: tuple[TimedModel, WorkTimes]) -> None:
    assert max(seconds for _, seconds in paused[1].layer_s) < PAUSE_S


def test_attention_is_timed_by_what_it_reads_and_computes(
    paused: tuple[TimedModel, WorkTimes],
) -> None:
    model, work = paused
    kernel = model.kernel
    assert isinstance(kernel, Pausing)
    decode, prefill = kernel.batches[0], kernel.batches[-1]
    layer = model.shape.layers[0]
    nbytes = int(decode.context_len.sum()) * 4 * (layer.key_width + layer.value_width)
    assert nbytes / 2 / PAUSE_S < work.attended_bytes_per_s < nbytes / PAUSE_S
    assert work.attention_s < PAUSE_S
    flops = prefill.work().attended * 2 * layer.q_heads * (layer.key_dim + layer.value_dim)
    assert flops / 2 / PAUSE_S < work.attended_flops_per_s < flops / PAUSE_S


def test_the_model_answers_as_before(paused: tuple[TimedModel, WorkTimes]) -> None:
    model, _ = paused
    before = model.cut.answer_attention(lambda *_: torch.zeros(0))
    assert before is not None
    assert "_left_out" not in repr(before)


def test_the_layer_that_most_layers_are_like_is_timed() -> None:
    assert typical_layer(timed("deepseek_v3")) == 1


def test_a_layer_of_mean_size_is_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timed("deepseek_v3")
    monkeypatch.setattr(work_probe, "ROWS", (1,))
    monkeypatch.setattr(
        work_probe, "seconds_of_each", lambda works, _device, **_: [1.0] * len(works)
    )
    sizes = [layer.dense_parameters for layer in model.shape.layers]
    ((_, seconds),) = probe_work(model).layer_s
    assert seconds == pytest.approx(sum(sizes) / len(sizes) / sizes[1])


def test_the_window_of_a_layer_bounds_the_context_it_is_timed_with() -> None:
    model = timed("mistral")
    layer = model.shape.layers[0]
    assert layer.window == 8
    kernel = Pausing()
    shape: ModelShape = model.shape
    probe = AttentionProbe(shape, layer, AttentionSpec(1.0, 8), kernel, 16, torch.float32, CPU)
    probe.decode_bytes_per_s(0.0)
    assert set(kernel.batches[0].context_len.tolist()) == {8}


def test_slow_work_is_done_once() -> None:
    runs = []

    def work() -> None:
        runs.append(0)
        time.sleep(SLOW_S * 1.1)

    assert seconds_of(work, CPU) >= SLOW_S
    assert len(runs) == 1


def test_quick_work_is_done_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "WINDOW_S", 0.02)
    monkeypatch.setattr(stopwatch, "WINDOWS", 3)
    runs = []
    seconds = seconds_of(lambda: runs.append(time.sleep(1e-3)), CPU)
    assert len(runs) > 3
    assert seconds >= 1e-3


def test_the_host_is_timed_for_any_number_of_sequences() -> None:
    assert min(host_seconds(1, CPU), host_seconds(256, CPU)) > 0
