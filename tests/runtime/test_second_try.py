"""Where memory runs out while a model is loaded, less of it is planned with, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import MIB
from tests.parity.tiny_models import as_text, ragged_prompts, save_tiny
from tests.runtime.engines import ask, texts
from tightrun.policies.plan import DoesNotFitError
from tightrun.runtime.engine import Engine
from tightrun.runtime.loading_offloaded import Shaken
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.options import EngineOptions, Machine
from tightrun.runtime.second_try import at_most_twice, smaller

ROOM = 576 * 1024


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Path) -> EngineOptions:
    """A model of which two layers of three have room, so that they are streamed from the host."""
    folder = save_tiny(tmp_path_factory.mktemp("model") / "llama", *RUN["llama"])
    return EngineOptions(
        str(folder),
        tokenizer=str(word_tokenizer),
        dtype="float32",
        machine=Machine("emulated", ROOM, 64 * MIB, h2d=2e9, d2h=2e9, disk_read=2e9),
        gpu_memory=ROOM,
        cpu_memory=64 * MIB,
        context=128,
        rows=6,
    )


class Failing:
    """Fails the allocations of an arena so many times."""

    def __init__(self, arena: str, times: int) -> None:
        self.arena, self.times = arena, times

    def __call__(self, name: str, _nbytes: int) -> bool:
        if name != self.arena or not self.times:
            return False
        self.times -= 1
        return True


@pytest.mark.parametrize("arena", ["arena slots", "arena kv", "host arena weights"])
def test_an_arena_without_room_is_planned_again_with_less(
    arena: str, options: EngineOptions
) -> None:
    notes: list[str] = []
    engine = Engine.load(options, notes.append, Shaken(faults=Failing(arena, 1)))
    try:
        [said] = [note for note in notes if note.startswith("out of memory")]
        assert said.startswith(f"out of memory while the model was loaded ({arena}: made to fail")
        assert said.endswith("planned again with 90 % of the memory")
        assert engine._loaded.accelerator.memory.budget == int(0.9 * ROOM)
        rows = [ask(i, as_text(p), max_tokens=3) for i, p in enumerate(ragged_prompts(3))]
        assert len(texts(engine, rows)) == 3
    finally:
        engine.close()


def test_what_fails_again_is_refused_with_what_asked_for_how_much(options: EngineOptions) -> None:
    with pytest.raises(DoesNotFitError) as refused:
        Engine.load(options, lambda _: None, Shaken(faults=Failing("arena kv", 2)))
    assert "and again with 90 % of it planned with: arena kv: made to fail for" in str(
        refused.value
    )
    assert "limits.gpu_memory" in str(refused.value)


def test_where_less_does_not_suffice_both_are_told(options: EngineOptions) -> None:
    def make(asked: EngineOptions) -> str:
        if asked is options:
            raise MemoryError("no room for 3 bytes")
        raise DoesNotFitError("does not fit: the sum.")

    with pytest.raises(DoesNotFitError, match=r"the sum\. All .* before: no room for 3 bytes"):
        at_most_twice(make, options, lambda _: None)


def test_other_refusals_are_not_tried_again(options: EngineOptions) -> None:
    tries: list[EngineOptions] = []

    def make(asked: EngineOptions) -> str:
        tries.append(asked)
        raise ModelRefusedError("no layers to cut it at")

    with pytest.raises(ModelRefusedError):
        at_most_twice(make, options, lambda _: None)
    assert tries == [options]


def test_shares_and_bytes_get_smaller_as_they_were_given(options: EngineOptions) -> None:
    less = smaller(options)
    assert (less.gpu_memory, less.cpu_memory) == (int(0.9 * ROOM), int(0.9 * 64 * MIB))
    shares = smaller(EngineOptions("model", gpu_memory=0.9, cpu_memory=0.8))
    assert shares.gpu_memory == pytest.approx(0.81)
    assert shares.cpu_memory == pytest.approx(0.72)
