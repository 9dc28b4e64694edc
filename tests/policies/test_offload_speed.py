"""The long run of a job from counts: never faster than a link, and all else as one expects."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.policies.machines import (
    H200,
    LLAMA_2_13B,
    LLAMA_3_70B,
    MULTI_HEAD,
    TWO_CORES,
    case_of,
    sizes,
)
from tightrun.policies.forms import Form, recipe_of
from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.offload_memory import Division, MemorySums
from tightrun.policies.offload_plan import plan_offloaded
from tightrun.policies.offload_search import Search, Wanted
from tightrun.policies.offload_speed import SpeedModel
from tightrun.policies.plan import Workload
from tightrun.policies.shape import ModelShape

LENGTHS = Lengths((512,), 32)
STREAMED = Division(0, 4, 32, 2048, 2048, workspace_blocks=32 * 34, host_blocks=32 * 34)


def speed(
    d: Division,
    shape: ModelShape = LLAMA_2_13B,
    rates: Rates = H200,
    lengths: Lengths = LENGTHS,
    form: Form = "none",
) -> float:
    sums = MemorySums(shape, sizes(shape), 16, 0, one_memory=False, activations=False)
    model = SpeedModel(sums, rates, lengths, recipe_of(shape), form)
    return model.output_tokens_per_s(d)


def test_no_pass_is_faster_than_its_weights_and_context_cross_the_link() -> None:
    sequences = STREAMED.batches * STREAMED.batch_size
    nbytes = sum(sizes(LLAMA_2_13B).layers)
    nbytes += sequences * LENGTHS.mean_context * LLAMA_2_13B.kv_bytes_per_token
    assert speed(STREAMED) <= sequences / (nbytes / H200.h2d_bytes_per_s)


def test_resident_layers_save_their_transfer() -> None:
    assert speed(STREAMED._replace(resident=20)) > speed(STREAMED)


def test_resident_context_saves_its_transfer() -> None:
    assert speed(STREAMED._replace(kv_blocks=34 * 40)) > speed(STREAMED)


@pytest.mark.parametrize("form", ["tokens", "activations"])
def test_recomputing_what_is_on_the_way_saves_a_part_of_it(form: Form) -> None:
    assert speed(STREAMED, form=form) > speed(STREAMED)


def test_replaying_is_held_to_the_rows_there_are() -> None:
    wide, narrow = STREAMED._replace(most_rows=8192), STREAMED._replace(most_rows=33)
    small = Lengths((128,), 128)
    assert speed(wide, MULTI_HEAD, TWO_CORES, small, "tokens") > speed(
        narrow, MULTI_HEAD, TWO_CORES, small, "tokens"
    )


def test_layers_from_a_slow_disk_are_slow() -> None:
    slow = replace(H200, disk_bytes_per_s=5e8)
    assert speed(STREAMED._replace(disk=20), rates=slow) < speed(STREAMED, rates=slow) / 5


def test_places_that_no_sequence_fills_make_nothing_faster() -> None:
    few = Lengths((512,), 32, sequences=4)
    less = STREAMED._replace(batch_size=1)
    assert speed(STREAMED, lengths=few) == pytest.approx(speed(less, lengths=few), rel=0.02)


def test_a_job_of_one_round_pays_for_its_prefill_whole() -> None:
    one, many = replace(LENGTHS, sequences=128), replace(LENGTHS, sequences=128 * 50)
    assert speed(STREAMED, lengths=one) < speed(STREAMED, lengths=many)


def test_where_no_typical_sequence_finds_room_it_is_slow_but_a_speed() -> None:
    cramped = STREAMED._replace(workspace_blocks=4, host_blocks=4)
    assert 0 < speed(cramped) < speed(STREAMED) / 20


def test_more_device_memory_is_never_much_slower() -> None:
    found = [
        plan_offloaded(
            case_of(
                LLAMA_2_13B,
                Hardware("cuda:0", Budget(gib * 2**30, "a"), Budget(200 * 2**30, "b"), 16),
                H200,
                Workload(1000, 1, 544, 544, 32),
            )
        ).predicted_tokens_per_s
        for gib in (4, 8, 12, 16, 20, 24, 28, 40, 80)
    ]
    assert all(later > 0.9 * before for before, later in pairwise(found))
    assert found[-1] > 3 * found[0]


def test_the_search_looks_at_few_thousand_divisions() -> None:
    sums = MemorySums(LLAMA_3_70B, sizes(LLAMA_3_70B), 16, 0, one_memory=False, activations=False)
    wanted = Wanted(2048, 34, 34, 125, 8192, None, None, "none", None)
    search = Search(sums, 24 * 2**30, 512 * 2**30, wanted)
    ways = (search.all_resident, search.kv_resident, search.offloaded)
    looked_at = sum(1 for way in ways for width in wanted.widths for _ in way(width))
    assert 100 < looked_at < 6000
