"""Every way to divide a model and its contexts between device, host and disk says the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity.families import VOCAB
from tests.parity.offloaded import (
    LONGEST,
    Run,
    Way,
    loaded_engine,
    requests_of,
    rough,
    run_engine,
    run_oracle,
)
from tests.parity.tiny_models import Oracle, as_text, ragged_prompts, spoken
from tests.runtime.engines import answers, ask
from tightrun.core import StepRecord
from tightrun.policies.foresight import Sizes
from tightrun.runtime.engine import Engine

LAYERS = (0, 1, 2)
THRESHOLD = 64  # of the longrope model's second table


@st.composite
def ways(draw: st.DrawFn) -> Way:
    """Policies, ratios, forms, batches, tiers and rooms in all combinations."""
    resident = draw(st.sampled_from([None, (1,), ()]), label="resident")
    streamed = [] if resident is None else [x for x in LAYERS if x not in resident]
    disk = draw(st.sampled_from([(), tuple(streamed), tuple(streamed[:1])]), label="disk")
    batch_size = draw(st.sampled_from([1, 2, 5]), label="batch size")
    tight = draw(st.booleans(), label="tight")
    return Way(
        policy=draw(st.sampled_from(["adaptive"] * 4 + ["simple", "static", "sync"])),
        recompute=draw(st.sampled_from([None, 0.0, 0.3, 0.7, 1.0])),
        form=draw(st.sampled_from(["tokens", "activations"])),
        batches=draw(st.sampled_from([1, 2, 3, 8])),
        batch_size=batch_size,
        resident=resident,
        disk=disk,
        slots=draw(st.sampled_from([1, 2, 3])),
        kv_blocks=draw(st.sampled_from([0, 0, 14])),
        workspace=LONGEST + batch_size if tight else None,
        prefill_tokens=draw(st.sampled_from([7, 64, 512])),
        staging_rows=draw(st.sampled_from([1, 8, 512])),
        most_rows=draw(st.sampled_from([512, 4096])),
    )


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "deepseek_v3"])
@given(way=ways(), seed=st.integers(0, 99))
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_way_says_what_generate_says(
    way: Way,
    seed: int,
    family: str,
    oracle_of: Callable[[str], Oracle],
    words: Path,
    tmp_path: Path,
) -> None:
    oracle = oracle_of(family)
    assert run_oracle(oracle, words, way, rough(seed), spill=tmp_path).said == oracle.expected


@pytest.mark.parametrize("batches", [1, 2, 3, 8])
@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_any_number_of_batches_may_share_a_pass(
    form: str, batches: int, oracle_of: Callable[[str], Oracle], words: Path
) -> None:
    oracle = oracle_of("llama")
    run = run_oracle(oracle, words, Way(recompute=0.7, form=form, batches=batches), rough(4))
    assert run.said == oracle.expected
    assert max(step.batches for step in run.steps) == batches


class ChangesSizes(list[StepRecord]):
    """Takes an engine's steps, and gives it other sizes after every other one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        ways = itertools.product((5, 1, 3), (1, 3, 2), (64, 5))
        self._ways = itertools.cycle(Sizes(*way) for way in ways)

    def append(self, step: StepRecord) -> None:
        super().append(step)
        if len(self) % 2:
            self._engine._scheduler.sizes = next(self._ways)


@pytest.mark.parametrize("form", ["tokens", "activations"])
@pytest.mark.parametrize("kv_blocks", [0, 14])
def test_sizes_that_change_in_mid_run_say_the_same(
    form: str, kv_blocks: int, oracle_of: Callable[[str], Oracle], words: Path
) -> None:
    oracle = oracle_of("llama")
    way = Way(form=form, recompute=0.4, batches=3, batch_size=5, kv_blocks=kv_blocks)
    with loaded_engine(oracle.folder, words, way, rough(6)) as engine:
        steps = ChangesSizes(engine)
        got = answers(engine, requests_of(oracle), steps)
    said = [got[i].samples[0] for i in range(len(got))]
    assert [(s.text, s.finish_reason, s.completion_tokens) for s in said] == oracle.expected
    assert len({(step.batches, step.sequences) for step in steps}) > 3


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_sequences_that_give_way_begin_again_and_say_the_same(
    form: str, oracle_of: Callable[[str], Oracle], words: Path
) -> None:
    oracle = oracle_of("llama")
    # Rows that end at once promise short outputs; those behind them take all they may.
    short = [
        ask(i, "w9", max_tokens=50, stop_token_ids=tuple(range(VOCAB)), ignore_eos=True)
        for i in range(36)
    ]
    long = [
        ask(36 + i, as_text(p[-20:]), max_tokens=50, ignore_eos=True)
        for i, p in enumerate(oracle.prompts[:6])
    ]

    def run(workspace: int) -> Run:
        way = Way(recompute=0.3, form=form, batches=2, batch_size=3, workspace=workspace)
        with loaded_engine(oracle.folder, words, way, rough(5)) as engine:
            return run_engine(engine, short + long)

    tight, roomy = run(8), run(40)
    assert tight.texts == roomy.texts
    assert tight.summary.preemptions > roomy.summary.preemptions == 0


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_a_resident_prefix_is_shared_by_contexts_off_the_device(
    form: str, oracle_of: Callable[[str], Oracle], words: Path
) -> None:
    oracle = oracle_of("gemma3_text")
    run = run_oracle(oracle, words, Way(recompute=0.3, form=form, kv_blocks=14), rough(6))
    assert run.said == oracle.expected
    assert run.summary.shared_tokens >= 64 * 10
    assert sum(step.kv_bytes_in for step in run.steps) > 0


@pytest.mark.parametrize("form", ["tokens", "activations"])
@pytest.mark.parametrize("policy", ["adaptive", "sync"])
def test_each_side_of_a_longrope_keeps_its_table(
    policy: str, form: str, longrope_folder: Path, words: Path, tmp_path: Path
) -> None:
    # Without those for which `generate` changes the table on the way.
    prompts = [
        p for p in ragged_prompts(16, shared=20, longest=100)
        if len(p) > THRESHOLD or len(p) + 9 <= THRESHOLD
    ]  # fmt: skip
    oracle = Oracle(longrope_folder, prompts, 10)
    rows = [ask(i, as_text(p), max_tokens=10, ignore_eos=True) for i, p in enumerate(prompts)]
    way = Way(policy, 0.5, form, batches=2, batch_size=4, resident=(0,))
    with loaded_engine(oracle.folder, words, way, rough(7), spill=tmp_path) as engine:
        run = run_engine(engine, rows)
    assert run.texts == [spoken(tokens) for tokens in oracle.generated]
    assert {len(p) > THRESHOLD for p in prompts} == {True, False}
