"""The widest pass runs once and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.runtime.engines import small_engine
from tightrun.runtime.loading import LoadedModel
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.warm_up import widest_pass


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch_size": 5, "prefill_tokens": 2048},
        {"batch_size": 1, "prefill_tokens": 64},
        {"batch_size": 100, "prefill_tokens": 50},
        {"batch_size": 3, "prefill_tokens": 700, "kv_blocks": 4},
    ],
    ids=str,
)
def test_the_cache_is_empty_after_it(
    sizes: dict[str, int], tiny_llama: tuple[EngineOptions, LoadedModel]
) -> None:
    engine = small_engine(tiny_llama, **sizes)
    widths: list[int] = []
    cut = tiny_llama[1].cut
    hook = cut.model.get_input_embeddings().register_forward_hook(  # type: ignore[operator]
        lambda _module, args, _out: widths.append(args[0].numel())
    )
    widest_pass(cut, engine._cache, replace(engine.plan), torch.device("cpu"))
    hook.remove()
    assert engine._cache.pool.used == 0
    assert engine._cache.free_places == sizes["batch_size"] + 1
    room = min(sizes["batch_size"] * 511, engine.plan.kv_tokens)
    assert widths[0] == min(sizes["prefill_tokens"], room)
