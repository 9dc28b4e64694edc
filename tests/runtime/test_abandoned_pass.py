"""A pass may be given up anywhere on its way; what follows is as if it had not been."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parity.families import RUN
from tests.parity.offloaded import Way, loaded_engine, rough
from tests.parity.tiny_models import as_text, ragged_prompts, save_tiny
from tests.runtime.engines import ask, texts
from tightrun.core import Completion, Request
from tightrun.runtime import pass_run
from tightrun.runtime.device import Happening
from tightrun.runtime.engine import Engine
from tightrun.runtime.pass_plan import PlannedPass
from tightrun.runtime.scheduler import Segment
from tightrun.runtime.stages import PARTS_AHEAD, Sample, never

# Where contexts and weights are; all but the first on three batches of two.
WAYS = {
    "resident": Way(resident=None, kv_blocks=40, workspace=0),
    "streamed weights": Way(kv_blocks=40, workspace=0),
    "from the disk, contexts off the device": Way(disk=(1,), recompute=0.0),
    "some contexts resident": Way(resident=(1,), recompute=0.0, kv_blocks=10),
    "tokens recomputed": Way(recompute=0.6, kv_blocks=10),
    "activations recomputed": Way(recompute=0.6, form="activations", kv_blocks=10),
    "the share decided every pass": Way(recompute=None, form="activations"),
    "baseline static": Way("static", 0.0, resident=(0,)),
    "baseline sync": Way("sync", 0.0, resident=(0,)),
}
# Asked twice a batch and layer: three layers and the head of three batches are 21.
ASKED_IN_A_PASS = 21


class Waverer:
    """Gives passes up after a random while, one in two at the most, and where contexts may be
    recomputed asks for another share of them every time."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.given_up = 0
        self._chance = random.Random(seed)
        self._run = engine._runner.run
        self._distributor = engine._distributor

    def run(
        self, block: list[list[Segment]], sample: Sample, given_up: Callable[[], bool] = never
    ) -> PlannedPass:
        left = self._chance.randrange(2 * ASKED_IN_A_PASS)
        if self._distributor.form != "none":
            self._distributor.forced = self._chance.choice((0.0, 0.3, 0.7, 1.0))

        def enough() -> bool:
            nonlocal left
            left -= 1
            self.given_up += left == 0
            return left <= 0 or given_up()

        return self._run(block, sample, enough)


def rows() -> list[Request]:
    prompts = ragged_prompts(9, shared=20, longest=40)
    return [ask(i, as_text(p), max_tokens=8, ignore_eos=True) for i, p in enumerate(prompts)]


def prompt_tokens(request: Request) -> int:
    assert isinstance(request.prompt, str)
    return len(request.prompt.split())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "llama", *RUN["llama"])


@pytest.fixture(scope="module", params=WAYS)
def engine(
    request: pytest.FixtureRequest,
    model: Path,
    word_tokenizer: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    spill = tmp_path_factory.mktemp("spill")
    way = WAYS[request.param]
    with loaded_engine(model, word_tokenizer, way, rough(3), spill=spill) as engine:
        yield engine


@pytest.fixture(scope="module")
def undisturbed(engine: Engine) -> dict[int, str]:
    return texts(engine, rows())


@pytest.mark.parametrize("seed", range(2))
def test_giving_passes_up_changes_no_text_and_counts_no_prompt_twice(
    seed: int, engine: Engine, undisturbed: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waverer = Waverer(engine, seed)
    monkeypatch.setattr(engine._runner, "run", waverer.run)
    before = engine.summary().prompt_tokens
    assert texts(engine, rows()) == undisturbed
    assert engine.summary().prompt_tokens - before == sum(map(prompt_tokens, rows()))
    assert waverer.given_up > 3


def test_of_a_long_pass_little_is_enqueued_before_it_is_over(
    engine: Engine, undisturbed: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, ahead, most = engine._loaded.accelerator, 0, 0
    keep_step = engine._stages._keep_step

    def settle(*happenings: Happening) -> None:
        nonlocal ahead
        ahead -= 1
        settled(*happenings)

    def keep() -> None:
        nonlocal ahead, most
        ahead += 1
        most = max(most, ahead)
        with monkeypatch.context() as patched:
            patched.setattr(device, "settle", settle)
            keep_step()

    settled = device.settle
    run = engine._runner.run

    def begun(*args: Any) -> PlannedPass:
        nonlocal ahead
        ahead = 0
        return run(*args)

    monkeypatch.setattr(engine._runner, "run", begun)
    monkeypatch.setattr(engine._stages, "_keep_step", keep)
    monkeypatch.setattr(pass_run, "LONG_PASS_S", -1.0)
    assert texts(engine, rows()) == undisturbed
    assert most == PARTS_AHEAD + 1


def test_a_stop_gives_the_running_pass_up_and_the_engine_may_run_again(
    engine: Engine, undisturbed: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, asked = threading.Event(), iter(range(1000))
    run = engine._runner.run

    def stopping(
        block: list[list[Segment]], sample: Sample, given_up: Callable[[], bool]
    ) -> PlannedPass:
        def stop_in_mid_pass() -> bool:
            if next(asked) == 3 * ASKED_IN_A_PASS // 2:
                stop.set()
            return given_up()

        return run(block, sample, stop_in_mid_pass)

    with monkeypatch.context() as patched:
        patched.setattr(engine._runner, "run", stopping)
        got: list[Completion] = []
        engine.run(rows(), got.append, lambda _: None, stop)
    assert next(asked) <= 3 * ASKED_IN_A_PASS // 2 + 3
    assert got == []
    assert texts(engine, rows()) == undisturbed
