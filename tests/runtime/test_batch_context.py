"""What a pass fetches, computes again and writes back: each token once, in the form it is held."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.context_books import ContextBooks
from tests.runtime.test_kv_cache import SIZE
from tests.runtime.test_workspace_pool import offloading_cache
from tightrun.policies.kv import Form
from tightrun.runtime.batch_context import EVERYTHING, Runs, replay_end
from tightrun.runtime.sequence import Kept

ROWS = 4096


def books(form: Form = "tokens", staging_rows: int = 64, workspace: int = 24) -> ContextBooks:
    cache = offloading_cache(
        resident=4, workspace=workspace, stored=workspace, activations=workspace
    )
    return ContextBooks(cache, form, staging_rows, ROWS)


@given(st.lists(st.integers(0, 60)))
def test_runs_are_the_blocks_in_as_few_pieces_as_there_are(blocks: list[int]) -> None:
    runs = Runs.of(blocks)
    covered = [block for first, end in runs.runs for block in range(first, end)]
    assert covered == sorted(set(blocks))
    assert runs.blocks == len(covered)
    assert all(
        after[0] > before[1] for before, after in zip(runs.runs, runs.runs[1:], strict=False)
    )


@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        (Kept(), Kept(), 0),
        (Kept(2, 2), Kept(2, 2), 8),
        (Kept(2, 2), Kept(1, 1), 8),  # becomes KV: computed once more to be written
        (Kept(1, 1), Kept(2, 2), 8),  # from now on computed again
        (Kept(0, 0), Kept(0, 2), 8),  # KV never gives activations
        (Kept(0, 2), Kept(0, 1), 0),  # activations give KV
        (Kept(0, 2), Kept(0, 2), 0),
        (Kept(0, 3), Kept(0, 4), 0),  # what ends before is not held otherwise for it
        (Kept(0, 1), Kept(1, 1), 4),  # activations dropped to tokens
        (Kept(EVERYTHING, EVERYTHING), Kept(EVERYTHING, EVERYTHING), 10),
    ],
)
def test_what_is_computed_again(before: Kept, after: Kept, end: int) -> None:
    assert replay_end(10, SIZE, before, after) == end


def test_a_context_kept_as_keys_and_values_comes_back_whole_and_only_new_tokens_go_out() -> None:
    run = books()
    run.start(10)
    prefill = run.step([10], 0, 0.0)
    assert prefill is not None
    assert prefill.fetched(None).runs == ()
    assert prefill.stored(None)[0].runs == ((0, 3),)
    decode = run.step([1], 0, 0.0)
    assert decode is not None
    assert decode.fetched(None).runs == ((0, 3),)
    assert decode.stored(None)[0].runs == ()
    assert decode.stored(None)[1].slots.tolist() == [10]


def test_what_will_be_computed_again_is_never_written_out() -> None:
    run = books()
    run.start(20)
    run.step([20], 0, 0.4)
    assert run.stored_tokens == 12
    run.start(8)
    run.step([1, 8], 20, 1.0)
    assert run.stored_tokens == 12


def test_dropped_keys_and_values_are_computed_again_in_the_same_pass() -> None:
    run = books()
    run.start(20)
    run.step([20], 0, 0.0)
    context = run.step([1], 8, 0.0)
    assert context is not None
    assert context.replayed_tokens == 8
    assert context.fetched(None).blocks == 3


def test_tokens_become_keys_and_values_again_by_one_more_replay() -> None:
    run = books()
    run.start(20)
    run.step([20], 0, 1.0)
    back = run.step([1], 0, 0.0)
    assert back is not None
    assert back.replayed_tokens == 20
    assert back.stored(None)[0].blocks == 5
    after = run.step([1], 0, 0.0)
    assert after is not None
    assert after.replayed_tokens == 0


def test_activations_are_fetched_in_place_of_keys_and_values() -> None:
    run = books("activations")
    run.start(20)
    run.step([20], 0, 1.0)
    context = run.step([1], 20, 1.0)
    assert context is not None
    assert context.projected_tokens == 20
    assert context.projected.states.blocks == 5
    assert context.fetched(None).blocks == 0
    assert context.replayed_tokens == 0
    assert run.stored_tokens == 0


def test_outside_a_sliding_window_nothing_is_fetched_or_stored() -> None:
    run = books()
    run.start(20)
    prefill = run.step([20], 0, 0.0)
    assert prefill is not None
    assert prefill.stored(None)[0].blocks == 5
    assert prefill.stored(6)[0].blocks == 2  # tokens 15 to 19 are seen from position 20
    decode = run.step([1], 0, 0.0)
    assert decode is not None
    assert decode.fetched(6).blocks == 2


def test_a_shared_prefix_is_neither_fetched_nor_stored() -> None:
    run = books()
    run.start(8, offloaded=False)
    run.step([8], 0, 0.0)
    run.start(6, donor=run.running[0])
    run.step([1, 6], 0, 0.0)
    assert run.stored_tokens == 6
    context = run.step([1, 1], 0, 0.0)
    assert context is not None
    assert context.offloaded_tokens == 6
    assert context.fetched(None).blocks == 2


def test_rows_that_find_no_room_in_staging_go_out_as_blocks() -> None:
    run = books(staging_rows=1)
    for _ in range(3):
        run.start(5)
    run.step([5, 5, 5], 0, 0.0)
    context = run.step([1, 1, 1], 0, 0.0)
    assert context is not None
    blocks, rows = context.stored(None)
    assert (blocks.blocks, rows.count) == (2, 1)


@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_after_every_pass_each_token_is_held_in_exactly_the_form_it_is_said_to_have(
    data: st.DataObject,
) -> None:
    forms: list[Form] = ["tokens", "activations", "none"]
    form = data.draw(st.sampled_from(forms), label="form")
    workspace = data.draw(st.integers(3, 24), label="workspace")
    stored = data.draw(st.integers(1, workspace), label="stored")
    states = data.draw(st.integers(1, workspace), label="activations")
    cache = offloading_cache(4, workspace, stored, states)
    staging, most = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([12, ROWS]))
    run = ContextBooks(cache, form, staging, most)
    if data.draw(st.booleans(), label="shared prefix"):
        run.start(data.draw(st.integers(2, 9)), offloaded=False)
        run.step([9], 0, 0.0)
    donor = run.running[0] if run.running else None
    for _ in range(data.draw(st.integers(2, 12), label="passes")):
        if cache.free_places and data.draw(st.booleans(), label="start"):
            share = donor if donor in run.running and data.draw(st.booleans()) else None
            run.start(data.draw(st.integers(1, 20)), share)
        others = [x for x in run.running if x is not donor]
        if others and data.draw(st.integers(0, 5)) == 0:
            run.end(data.draw(st.sampled_from(others)))
        chunks = [data.draw(st.integers(1, 12)) for _ in run.running]
        held = sum(x.computed for x in run.running)
        recomputed = data.draw(st.integers(0, held + 4), label="recomputed")
        run.step(chunks, recomputed, data.draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])))
    for one in list(run.running):
        run.end(one)
    assert cache.pool.free == 4
    assert (cache.lanes[0].free, cache.lanes[0].free_stored) == (workspace, stored)
    assert cache.states[0].free == states
