"""The engine as a whole, on a tiny model with small plans."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tests.parity.tiny_models import as_text, ragged_prompts
from tests.runtime.engines import answers, ask, small_engine, texts
from tightrun.core import Completion, Request, StepRecord
from tightrun.policies.foresight import Sizes
from tightrun.runtime.engine import Engine
from tightrun.runtime.loading import LoadedModel
from tightrun.runtime.options import EngineOptions

Loaded = tuple[EngineOptions, LoadedModel]
PROMPTS = [as_text(p) for p in ragged_prompts(12, shared=20, longest=40)]
SAMPLING: dict[str, Any] = {"temperature": 0.9, "top_p": 0.9, "max_tokens": 10, "ignore_eos": True}


def rows(**sampling: Any) -> list[Request]:
    return [ask(i, p, **SAMPLING | sampling) for i, p in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def sampled(tiny_llama: Loaded) -> dict[int, str]:
    """What the rows come to when each runs alone."""
    return {r.row_index: texts(small_engine(tiny_llama), [r])[r.row_index] for r in rows()}


def test_the_texts_differ_so_that_comparing_them_means_something(sampled: dict[int, str]) -> None:
    assert len(set(sampled.values())) == len(PROMPTS)


# --- the same rows give the same text ------------------------------------------------------------


def test_a_batch_gives_what_its_rows_give_alone(
    tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    assert texts(small_engine(tiny_llama), rows()) == sampled


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_rows_does_not_matter(
    seed: int, tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    shuffled = rows()
    random.Random(seed).shuffle(shuffled)
    assert texts(small_engine(tiny_llama), shuffled) == sampled


@pytest.mark.parametrize("batch_size", [1, 3, 12])
def test_the_batch_size_does_not_matter(
    batch_size: int, tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    assert texts(small_engine(tiny_llama, batch_size=batch_size), rows()) == sampled


@pytest.mark.parametrize("prefill_tokens", [1, 7, 64])
def test_the_size_of_prefill_chunks_does_not_matter(
    prefill_tokens: int, tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    assert texts(small_engine(tiny_llama, prefill_tokens=prefill_tokens), rows()) == sampled


def test_giving_way_under_a_tiny_cache_does_not_matter(
    tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    engine = small_engine(tiny_llama, block_tokens=4, kv_blocks=24)
    engine._scheduler.lengths.planned = 1  # outputs are believed to be short
    assert texts(engine, rows()) == sampled
    assert engine.summary().preemptions > 2


def test_sizes_that_change_in_mid_run_do_not_matter(
    tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    engine = small_engine(tiny_llama, batch_size=5, batches=2, prefill_tokens=64)
    ways = itertools.cycle([Sizes(1, 1, 3), Sizes(5, 2, 64), Sizes(2, 2, 7), Sizes(3, 1, 64)])
    got: dict[int, str] = {}
    together: set[int] = set()

    def finish(completion: Completion) -> None:
        got[completion.row_index] = completion.samples[0].text

    def on_step(step: StepRecord) -> None:
        together.add(step.sequences)
        if step.iteration % 3 == 0:
            engine._scheduler.sizes = next(ways)

    run_into(engine, rows(), finish, on_step)
    assert got == sampled
    assert len(together) > 3


def test_the_shared_prefix_does_not_matter(tiny_llama: Loaded, sampled: dict[int, str]) -> None:
    engine = small_engine(tiny_llama)
    assert texts(engine, rows()) == sampled
    assert engine.summary().shared_tokens == 11 * 20


def test_an_engine_may_run_again_with_other_rows(
    tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    engine = small_engine(tiny_llama)
    others = [ask(i, as_text([9] * 30 + [i]), **SAMPLING) for i in range(5, 15)]
    before = texts(engine, others)
    assert texts(engine, rows()) == sampled
    assert texts(engine, others) == before


def test_an_engine_may_run_again_after_a_stop(tiny_llama: Loaded, sampled: dict[int, str]) -> None:
    engine = small_engine(tiny_llama, batch_size=3)
    stop = threading.Event()
    engine.run(rows(max_tokens=100), lambda _: None, lambda _: stop.set(), stop)
    assert texts(engine, rows()) == sampled


# --- what a row asks for -------------------------------------------------------------------------


def test_seeds_differ(tiny_llama: Loaded) -> None:
    requests = [replace(ask(i, PROMPTS[0], seed=i, **SAMPLING), id="same") for i in range(6)]
    assert len(set(texts(small_engine(tiny_llama), requests).values())) == 6


def test_samples_of_a_row_differ_and_the_first_is_that_of_one_alone(
    tiny_llama: Loaded, sampled: dict[int, str]
) -> None:
    engine = small_engine(tiny_llama, batch_size=4)
    got = answers(engine, rows(n=3))
    for row, completion in got.items():
        said = [sample.text for sample in completion.samples]
        assert said[0] == sampled[row]
        assert len(set(said)) == 3


def test_greedy_samples_of_a_row_are_equal(tiny_llama: Loaded) -> None:
    [completion] = answers(
        small_engine(tiny_llama), [ask(0, PROMPTS[0], n=3, max_tokens=5)]
    ).values()
    assert len({sample.text for sample in completion.samples}) == 1


def test_rows_with_different_wishes_run_together(tiny_llama: Loaded) -> None:
    wishes: list[dict[str, Any]] = [
        {"max_tokens": 3},
        {"max_tokens": 7, "temperature": 1.0},
        {"max_tokens": 5, "logprobs": 2},
        {"max_tokens": 1, "n": 2},
        {"max_tokens": 9, "repetition_penalty": 1.5, "min_tokens": 4},
    ]
    requests = [ask(i, PROMPTS[i], ignore_eos=True, **wish) for i, wish in enumerate(wishes)]
    together = answers(small_engine(tiny_llama), requests)
    said = {row: [s.text for s in c.samples] for row, c in together.items()}
    for request in requests:
        [alone] = answers(small_engine(tiny_llama), [request]).values()
        assert [s.text for s in alone.samples] == said[request.row_index]
    assert [c.samples[0].completion_tokens for _, c in sorted(together.items())] == [3, 7, 5, 1, 9]


def test_log_probabilities_are_those_of_the_model(tiny_llama: Loaded) -> None:
    prompt = ragged_prompts(1, shared=20, longest=40)[0]
    [completion] = answers(
        small_engine(tiny_llama), [ask(0, as_text(prompt), max_tokens=4, logprobs=3)]
    ).values()
    scored = completion.samples[0].logprobs
    assert scored is not None
    assert [x.token for x in scored] == completion.samples[0].text.split()
    for x in scored:
        assert x.top[0][0] == x.token_id  # greedy
        assert x.top[0][2] == pytest.approx(x.logprob)
        assert x.top[0][2] >= x.top[1][2] >= x.top[2][2]


def test_a_stop_string_over_several_tokens_cuts_the_text(tiny_llama: Loaded) -> None:
    [whole] = texts(small_engine(tiny_llama), [ask(0, PROMPTS[3], max_tokens=8)]).values()
    words = whole.split()
    stop = f"{words[2]} {words[3]}"
    [completion] = answers(
        small_engine(tiny_llama), [ask(0, PROMPTS[3], max_tokens=8, stop=(stop,))]
    ).values()
    [sample] = completion.samples
    assert sample.text == whole[: whole.index(stop)]
    assert (sample.finish_reason, sample.stop_reason, sample.completion_tokens) == ("stop", stop, 4)


def test_max_tokens_is_cut_to_the_room_left_in_the_context(tiny_llama: Loaded) -> None:
    engine = small_engine(tiny_llama, context=100)
    long = as_text([5 + i % 90 for i in range(95)])
    [completion] = answers(engine, [ask(0, long, max_tokens=50, ignore_eos=True)]).values()
    [sample] = completion.samples
    assert (sample.finish_reason, sample.completion_tokens) == ("length", 5)


# --- rows that cannot be run ---------------------------------------------------------------------


def test_bad_rows_are_error_rows_and_the_others_go_on(tiny_llama: Loaded) -> None:
    engine = small_engine(tiny_llama, context=60)
    requests = [
        ask(0, PROMPTS[0], max_tokens=3),
        ask(1, as_text([7] * 80), max_tokens=3),
        ask(2, ({"role": "user", "content": "w5"},), max_tokens=3),
        ask(3, "", max_tokens=3),
        ask(4, PROMPTS[1], max_tokens=3),
    ]
    got = answers(engine, requests)
    codes = {row: c.error.code if c.error else None for row, c in got.items()}
    assert codes == {0: None, 1: "context_length", 2: "bad_messages", 3: "bad_row", 4: None}


def test_a_job_of_bad_rows_alone_ends(tiny_llama: Loaded) -> None:
    assert len(answers(small_engine(tiny_llama), [ask(i, "") for i in range(3)])) == 3


def test_a_job_without_rows_ends(tiny_llama: Loaded) -> None:
    assert answers(small_engine(tiny_llama), []) == {}


def test_a_prompt_that_no_memory_can_hold_is_an_error_row(tiny_llama: Loaded) -> None:
    engine = small_engine(tiny_llama, kv_blocks=2)  # 128 tokens, of a context of 512
    requests = [ask(0, as_text([7] * 130)), ask(1, as_text([7] * 100), max_tokens=100)]
    got = answers(engine, requests)
    assert got[0].error is not None
    assert got[0].error.code == "context_length"
    assert got[1].samples[0].finish_reason in ("stop", "length")


# --- ending --------------------------------------------------------------------------------------


def run_into(engine: Engine, requests: Any, finish: Any = None, on_step: Any = None) -> None:
    engine.run(requests, finish or (lambda _: None), on_step or (lambda _: None), threading.Event())


def own_threads() -> list[str]:
    """The engine's threads that are still there after a moment."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        names = [t.name for t in threading.enumerate() if t.name in ("encode", "deliver")]
        if not names:
            return []
        time.sleep(0.01)
    return names


def test_an_exception_of_the_requests_ends_the_run_with_it(tiny_llama: Loaded) -> None:
    def broken() -> Iterator[Request]:
        yield from rows()[:3]
        raise OSError("the input is gone")

    with pytest.raises(OSError, match="the input is gone"):
        run_into(small_engine(tiny_llama), broken())
    assert own_threads() == []


def test_an_exception_of_finish_ends_the_run_with_it(tiny_llama: Loaded) -> None:
    def finish(_completion: Completion) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run_into(small_engine(tiny_llama), rows(), finish)
    assert own_threads() == []


def test_an_exception_of_finish_on_the_last_row_is_not_lost(tiny_llama: Loaded) -> None:
    def finish(completion: Completion) -> None:
        if completion.row_index == 11:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run_into(small_engine(tiny_llama, batch_size=1), rows(), finish)


def test_an_exception_of_the_step_report_ends_the_run_with_it(tiny_llama: Loaded) -> None:
    def on_step(_step: StepRecord) -> None:
        raise OSError("no report")

    with pytest.raises(OSError, match="no report"):
        run_into(small_engine(tiny_llama), rows(), on_step=on_step)
    assert own_threads() == []


def test_a_run_leaves_no_thread(tiny_llama: Loaded) -> None:
    run_into(small_engine(tiny_llama), rows())
    assert own_threads() == []


def test_a_stop_ends_the_run_within_a_pass(tiny_llama: Loaded) -> None:
    steps: list[StepRecord] = []
    stop = threading.Event()

    def on_step(step: StepRecord) -> None:
        steps.append(step)
        if len(steps) == 3:
            stop.set()

    small_engine(tiny_llama).run(rows(max_tokens=200), lambda _: None, on_step, stop)
    assert len(steps) == 3
    assert own_threads() == []


def test_what_finished_before_a_stop_is_handed_on(tiny_llama: Loaded) -> None:
    stop = threading.Event()
    got: list[Completion] = []

    def finish(completion: Completion) -> None:
        got.append(completion)
        stop.set()

    small_engine(tiny_llama, batch_size=1).run(rows(max_tokens=2), finish, lambda _: None, stop)
    assert 1 <= len(got) < len(PROMPTS)


def test_rows_that_come_as_others_finish_do_not_stop_the_run(tiny_llama: Loaded) -> None:
    """As with small shards, where a window of rows is admitted at a time."""
    room = threading.Semaphore(2)

    def admitted() -> Iterator[Request]:
        for request in rows():
            assert room.acquire(timeout=20), "the run stands still"
            yield request

    got: list[int] = []

    def finish(completion: Completion) -> None:
        got.append(completion.row_index)
        room.release()

    run_into(small_engine(tiny_llama), admitted(), finish)
    assert sorted(got) == list(range(12))


# --- what it says of itself ----------------------------------------------------------------------


def test_the_counts_are_those_of_the_rows(tiny_llama: Loaded) -> None:
    engine = small_engine(tiny_llama)
    steps: list[StepRecord] = []
    got = answers(engine, rows(), steps)
    summary, snapshot = engine.summary(), engine.snapshot()
    prompt_tokens = sum(len(p.split()) for p in PROMPTS)
    assert summary.prompt_tokens == snapshot.prompt_tokens == prompt_tokens
    assert sum(c.prompt_tokens for c in got.values()) == prompt_tokens
    assert summary.output_tokens == snapshot.output_tokens == 12 * 10
    assert (snapshot.running, snapshot.waiting, snapshot.predicted_remaining_tokens) == (0, 0, 0)
    assert summary.passes == len(steps) == steps[-1].iteration
    assert summary.bound_share > 0
    assert summary.flops > 0
    assert summary.binding in ("compute", "memory")


def test_steps_tell_what_each_pass_did(tiny_llama: Loaded) -> None:
    steps: list[StepRecord] = []
    answers(small_engine(tiny_llama, batch_size=12), rows(), steps)
    first = len(PROMPTS[0].split())
    assert (steps[0].phase, steps[0].prefill_tokens, steps[0].decode_tokens) == (
        "prefill",
        first,
        0,
    )
    assert steps[-1].phase == "decode"
    assert (steps[-1].prefill_tokens, steps[-1].decode_tokens) == (0, steps[-1].sequences)
    assert all(s.elapsed_s > 0 and s.bound_s > 0 for s in steps)
    assert all(a.started_s <= b.started_s for a, b in pairwise(steps))
    computed = sum(s.prefill_tokens + s.decode_tokens for s in steps)
    shared = 11 * 20
    assert computed == sum(len(p.split()) for p in PROMPTS) - shared + 12 * 9


def test_a_snapshot_expects_what_is_still_to_be_written(tiny_llama: Loaded) -> None:
    engine = small_engine(tiny_llama, batch_size=2)
    seen: list[int] = []
    run_into(
        engine,
        rows(),
        on_step=lambda _: seen.append(engine.snapshot().predicted_remaining_tokens),
    )
    assert seen[0] > seen[-1]
    assert seen[-1] == 0
    assert max(seen) <= 12 * 10


def test_a_description_names_model_kernel_and_sizes(tiny_llama: Loaded) -> None:
    told = "\n".join(small_engine(tiny_llama).describe())
    for part in ("LlamaForCausalLM", "float32 on cpu", "torch attention", "kv ", "5 sequences"):
        assert part in told
