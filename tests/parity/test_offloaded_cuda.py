"""A model and its contexts divided between a real card, its host and the disk say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parity.offloaded import Run, Way, rough, run_oracle
from tests.parity.tiny_models import Oracle
from tightrun.runtime.checkpoint import ModelSource, load_config
from tightrun.runtime.loaded_model import LoadedModel, Notify
from tightrun.runtime.loading_offloaded import Shaken, load_offloaded
from tightrun.runtime.machines import hardware_of
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.torch_device import hold_to_budget

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GIB = 2**30
# The smallest memory torch's allocator and its products are sure to work in.
CARD: dict[str, Any] = {
    "machine": None, "device": "cuda:0", "gpu_memory": GIB, "cpu_memory": 4 * GIB,
}  # fmt: skip

WAYS = {
    "weights streamed": Way(kv_blocks=40),
    "all streamed, contexts fetched": Way(recompute=0.0),
    "ratio chosen": Way(),
    "a third replayed": Way(recompute=0.3),
    "all replayed": Way(recompute=1.0),
    "activations": Way(recompute=0.7, form="activations"),
    "one resident layer, three slots": Way(resident=(1,), slots=3, batches=2, batch_size=5),
    "eight batches": Way(batches=8, batch_size=1, recompute=0.3),
    "from disk": Way(disk=(0, 1, 2), batches=2, batch_size=5),
    "contexts alone": Way(resident=None, recompute=0.3),
    "static": Way("static"),
    "sync": Way("sync"),
    "in order": Way("simple", recompute=0.3),
}


def load_streamed(options: EngineOptions, notify: Notify, shaken: Shaken) -> LoadedModel:
    """A tiny model fits any card: it is streamed all the same."""
    device = torch.device("cuda:0")
    source = ModelSource(options.model, None, options.dtype, False)
    hardware = hardware_of(options, device)
    hold_to_budget(device, hardware.device_memory)
    config = load_config(source)
    return load_offloaded(options, source, config, hardware, device, notify, shaken)


def on_card(oracle: Oracle, words: Path, way: Way, spill: Path, **options: Any) -> Run:
    options = {"spill": spill, "loading": load_streamed} | CARD | options
    return run_oracle(oracle, words, way, rough(1), **options)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_says_what_generate_says(
    way: str, family: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of(family)
    assert on_card(oracle, words, WAYS[way], tmp_path).said == oracle.expected


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss", "opt"])
def test_families_say_what_generate_says(
    family: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    oracle = oracle_of(family)
    assert on_card(oracle, words, Way(recompute=0.3), tmp_path).said == oracle.expected


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_bfloat16_answers_every_row_within_its_budget(
    form: str, oracle_of: Callable[[str], Oracle], words: Path, tmp_path: Path
) -> None:
    way = Way(recompute=0.3, form=form)
    run = on_card(oracle_of("llama"), words, way, tmp_path, dtype="bfloat16")
    assert len(run.samples) == len(oracle_of("llama").prompts)
    assert 0 < run.summary.peak_gpu_bytes <= GIB
