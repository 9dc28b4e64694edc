"""Memory runs out in the middle of a job, and every row comes out as it would have anyway."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import Way, loaded_engine, rough
from tests.parity.tiny_models import as_text, ragged_prompts, save_tiny
from tests.runtime.engines import ask
from tightrun.core import Completion, Request, RunNote
from tightrun.policies.plan import workspace_bytes
from tightrun.runtime.batch import Batch
from tightrun.runtime.engine import Engine
from tightrun.runtime.pass_plan import PlannedPass
from tightrun.runtime.survival import STRIKES, Survival

WAYS = {
    "resident": Way(resident=None, kv_blocks=40, workspace=0),
    "streamed weights": Way(kv_blocks=40, workspace=0, disk=(1,)),
    "contexts in host memory": Way(resident=(1,), recompute=0.0, kv_blocks=10),
    "tokens recomputed": Way(recompute=0.6, kv_blocks=10),
    "activations recomputed": Way(recompute=0.6, form="activations", kv_blocks=10),
}
# Fifty in all, a tenth of them always run.
SEEDS_EACH = 10
COMPUTED = ("embed", "layer", "head", "end of", "rows", "states", "spread")


@dataclass
class Faults:
    """Counts what takes memory in passes, and fails it at the given moments of that count."""

    moments: frozenset[int] = frozenset()
    asked: int = 0
    failed: list[str] = field(default_factory=list)

    def begin(self, moments: frozenset[int] = frozenset()) -> None:
        self.moments, self.asked, self.failed = moments, 0, []

    def __call__(self, name: str, nbytes: int) -> bool:
        del nbytes
        if not name.startswith(COMPUTED) or "poison" in name:
            return False
        self.asked += 1
        fails = self.asked in self.moments
        if fails:
            self.failed.append(name)
        return fails


@dataclass
class Shaky:
    """An engine, what makes it fail, and what it says while nothing does."""

    way: str
    engine: Engine
    faults: Faults
    texts: dict[int, str] = field(default_factory=dict)
    notes: list[RunNote] = field(default_factory=list)
    asked: int = 0

    def run(self, requests: list[Request]) -> dict[int, Completion]:
        """As if the engine had never failed before."""
        engine = self.engine
        widest = engine.plan.widest_batch
        engine._survival = Survival(widest, engine._runner.hold, lambda _: None)
        engine._runner.hold(widest)
        got: list[Completion] = []
        self.notes.clear()
        engine.run(requests, got.append, lambda _: None, threading.Event(), None, self.notes.append)
        assert len(got) == len(requests)
        return {completion.row_index: completion for completion in got}

    def say(self, requests: list[Request]) -> dict[int, str]:
        got = self.run(requests)
        assert {row: c.error for row, c in got.items() if c.error} == {}
        return {row: c.samples[0].text for row, c in got.items()}


def rows(**sampling: Any) -> list[Request]:
    prompts = ragged_prompts(9, shared=20, longest=40)
    wishes: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True} | sampling
    return [ask(i, as_text(p), **wishes) for i, p in enumerate(prompts)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "llama", *RUN["llama"])


@pytest.fixture(scope="module", params=WAYS)
def shaky(
    request: pytest.FixtureRequest,
    model: Path,
    word_tokenizer: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shaky]:
    faults = Faults()
    shaken = replace(rough(3), faults=faults)
    spill = tmp_path_factory.mktemp("spill")
    way = WAYS[request.param]
    with loaded_engine(model, word_tokenizer, way, shaken, spill=spill) as engine:
        shaky = Shaky(request.param, engine, faults)
        shaky.texts, shaky.asked = shaky.say(rows()), faults.asked
        yield shaky


def seeds() -> list[Any]:
    slow = pytest.mark.slow
    return [pytest.param(x, marks=slow if x else ()) for x in range(SEEDS_EACH)]


@pytest.mark.parametrize("seed", seeds())
def test_memory_that_fails_at_random_moments_costs_no_row(seed: int, shaky: Shaky) -> None:
    chance = random.Random(f"{shaky.way} {seed}")
    moments = {chance.randrange(shaky.asked) for _ in range(chance.choice((1, 2)))}
    if chance.random() < 0.7:
        # What fails once may fail again when it is tried the next time.
        moments |= {moment + chance.randrange(60) for moment in moments}
    assert len(moments) < STRIKES  # so that no row can be taken for the culprit
    shaky.faults.begin(frozenset(moments))
    assert shaky.say(rows()) == shaky.texts
    said = [note for note in shaky.notes if note.event == "out_of_memory"]
    assert bool(said) == bool(shaky.faults.failed)


def test_when_the_device_shrinks_the_batches_do(
    shaky: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaky.faults.begin()
    engine = shaky.engine
    memory = engine._loaded.accelerator.memory
    widths: list[int] = []
    run = engine._runner.run

    def shrinking(*args: Any) -> PlannedPass:
        if len(widths) == 3:  # somebody else takes all but the workspace of twelve rows
            room = workspace_bytes(engine.shape, 12)
            monkeypatch.setattr(memory, "budget", memory.used + room)
        planned = run(*args)
        widths.append(max(batch.tokens for batch in planned.batches))
        return planned

    monkeypatch.setattr(engine._runner, "run", shrinking)
    assert shaky.say(rows()) == shaky.texts
    assert max(widths[:3]) > 12
    assert 1 <= max(widths[3:]) <= 12
    assert len([x for x in shaky.notes if x.event == "out_of_memory"]) <= 4


def test_a_row_that_no_memory_suffices_for_is_an_error_row_and_the_others_are_not(
    shaky: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaky.faults.begin()
    model = shaky.engine._stages._model
    run_layer = model.run_layer

    def refuse(layer: int, batch: Batch) -> None:
        for segment in batch.segments:
            if segment.sequence.request.row_index == 4 and segment.first + segment.tokens > 30:
                raise MemoryError("scores of 30 tokens")
        run_layer(layer, batch)

    monkeypatch.setattr(model, "run_layer", refuse)
    got = shaky.run(rows(n=2))
    error = got.pop(4).error
    assert error is not None
    assert error.code == "oom"
    assert "scores of 30 tokens" in error.message
    assert {row: c.samples[0].text for row, c in got.items()} == {
        row: text for row, text in shaky.texts.items() if row != 4
    }
    assert not shaky.engine._survival.cap.holds


def test_an_error_that_is_not_of_memory_ends_the_run(
    shaky: Shaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_layer: int, _batch: Batch) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    shaky.faults.begin()
    monkeypatch.setattr(shaky.engine._stages._model, "run_layer", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        shaky.run(rows())
