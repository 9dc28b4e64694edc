"""Plans of runs larger than their device: exact sums, sensible sizes, refusals with the sum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.machines import (
    DESKTOP,
    GIB,
    H200,
    KIB,
    LLAMA_2_13B,
    LLAMA_3_70B,
    MIB,
    MULTI_HEAD,
    OPT_30B,
    T4,
    TINY,
    TWO_CORES,
    case_of,
    model,
    rates,
    sizes,
)
from tightrun.policies.case import PolicyAsked
from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.offload_memory import BUFFERS, WeightSizes
from tightrun.policies.offload_plan import plan_offloaded
from tightrun.policies.plan import (
    LEAST_CONTEXT,
    DoesNotFitError,
    Plan,
    Workload,
    logits_bytes,
    workspace_bytes,
)
from tightrun.policies.shape import ModelShape

FLEXGEN = Workload(rows=1000, longest_sequence=544, typical_sequence=544, typical_output=32)


def plan(
    shape: ModelShape,
    device: float,
    host: float = 1024 * GIB,
    machine: Rates = H200,
    kind: str = "cuda",
    workload: Workload = FLEXGEN,
    policy: PolicyAsked | None = None,
    *,
    context: int | None = None,
    weights: WeightSizes | None = None,
    beside: int = 0,
) -> Plan:
    memories = Budget(int(device), "limits.gpu_memory"), Budget(int(host), "limits.cpu_memory")
    hardware = Hardware(kind, *memories, cores=16)
    return plan_offloaded(
        case_of(
            shape, hardware, machine, workload, policy,
            weights=weights, context=context, beside=beside,
        )
    )  # fmt: skip


def device_bytes(
    shape: ModelShape, weights: WeightSizes, got: Plan, beside: int, *, gathers: bool
) -> int:
    """The sum of a plan's device memory, part by part."""
    resident = got.resident_layers
    slabs = weights.layers if resident is None else [weights.layers[i] for i in resident]
    block = shape.kv_block_bytes(got.block_tokens)
    states = got.block_tokens * shape.hidden * shape.element_bytes
    row = max(block, states if got.activation_blocks else 0) // got.block_tokens
    waiting = (shape.hidden + 2 * shape.layers[0].key_dim) * shape.element_bytes
    return (
        beside
        + weights.outer
        + sum(slabs)
        + got.slots * max(weights.layers)
        + (len(shape.layers) * got.kv_blocks + got.buffers * got.workspace_blocks) * block
        + got.buffers * got.activation_blocks * states
        + gathers * (got.kv_blocks + got.workspace_blocks) * block
        + BUFFERS * got.staging_rows * row
        + (got.batches - 1) * got.most_rows * waiting
        + workspace_bytes(shape, got.most_rows)
        + logits_bytes(shape, got.batch_size)
    )


shapes = st.builds(
    model,
    layers=st.integers(1, 12),
    hidden=st.sampled_from([32, 256, 1024]),
    q_heads=st.just(8),
    kv_heads=st.sampled_from([1, 8]),
    head_dim=st.sampled_from([8, 64]),
    wide=st.sampled_from([64, 2048]),
    vocab=st.sampled_from([256, 32_000]),
    context=st.integers(1, 8192),
)
workloads = st.builds(
    Workload,
    rows=st.one_of(st.none(), st.integers(0, 1000)),
    samples=st.integers(1, 3),
    longest_sequence=st.one_of(st.none(), st.integers(1, 10**5)),
)
asked = st.builds(
    PolicyAsked,
    batch_size=st.one_of(st.none(), st.integers(1, 100)),
    batches=st.one_of(st.none(), st.integers(1, 16)),
    recompute=st.one_of(st.none(), st.floats(0, 1)),
    form=st.sampled_from(["auto", "tokens", "activations"]),
)


@settings(max_examples=150, deadline=None)
@given(
    shapes,
    st.floats(0.05, 3.0),
    st.floats(0.1, 4.0),
    st.sampled_from(["cuda:0", "emulated", "cpu"]),
    workloads,
    asked,
    st.integers(0, 10 * MIB),
)
def test_no_plan_exceeds_a_memory_and_every_sum_is_exact(
    shape: ModelShape,
    device: float,
    host: float,
    kind: str,
    workload: Workload,
    policy: PolicyAsked,
    beside: int,
) -> None:
    weights = sizes(shape)
    device_budget, host_budget = device * shape.weight_bytes, host * shape.weight_bytes
    try:
        got = plan(
            shape, device_budget, host_budget, TWO_CORES, kind, workload, policy, beside=beside
        )
    except DoesNotFitError:
        return
    on_cpu = kind == "cpu"
    exact = device_bytes(shape, weights, got, beside if on_cpu else 0, gathers=kind == "cuda:0")
    assert sum(got.arenas.values()) == exact <= device_budget
    streamed = set(range(len(weights.layers))) - set(got.resident_layers or ())
    if got.resident_layers is None:
        streamed = set()
        assert not got.disk_layers
        assert got.slots == 0
    else:
        assert 2 <= got.slots <= min(4, len(streamed))
        assert len(streamed) > 2
    assert set(got.disk_layers) <= streamed
    if on_cpu:
        assert set(got.disk_layers) == streamed
        assert got.workspace_blocks == got.host_blocks == 0
        assert not got.host_arenas
    else:
        assert sum(got.host_arenas.values()) <= host_budget or not got.offloads
        kept = len(weights.layers) * got.batches * got.host_blocks
        assert got.host_arenas.get("kv", 0) == kept * shape.kv_block_bytes(got.block_tokens)
        in_host = sum(weights.layers[i] for i in streamed - set(got.disk_layers))
        assert got.host_arenas.get("weights", 0) == in_host
        assert got.host_arenas.get("beside", 0) == beside
    assert 0 <= got.host_blocks <= got.workspace_blocks
    assert 0 <= got.activation_blocks <= got.workspace_blocks
    assert got.most_rows >= max(got.prefill_tokens, got.batch_size)
    room = max(got.kv_blocks, got.workspace_blocks) * got.block_tokens
    longest = min(shape.context, workload.longest_sequence or shape.context)
    assert room >= min(longest, LEAST_CONTEXT)
    assert got.context <= min(shape.context, room)
    if policy.batch_size:
        assert got.batch_size == policy.batch_size
    if policy.batches:
        assert got.batches == policy.batches


@dataclass(frozen=True)
class Case:
    """A machine and a job, and bounds of what a sensible plan for them is."""

    shape: ModelShape
    device: float
    host: float
    rates: Rates
    kind: str
    workload: Workload
    sequences: tuple[int, int]
    resident: tuple[int, int]
    disk: tuple[int, int]
    tokens_per_s: tuple[float, float]


CASES = {
    "Llama-2-13B, 16 GiB": Case(
        LLAMA_2_13B, 16 * GIB, 200 * GIB, H200, "cuda", FLEXGEN,
        (150, 500), (10, 25), (0, 0), (100, 400),
    ),
    "Llama-2-13B, 24 GiB": Case(
        LLAMA_2_13B, 24 * GIB, 200 * GIB, H200, "cuda", FLEXGEN,
        (150, 500), (25, 38), (0, 0), (100, 500),
    ),
    "OPT-30B on a T4": Case(
        OPT_30B, 15 * GIB, 208 * GIB, T4, "cuda", FLEXGEN,
        (64, 200), (0, 9), (0, 2), (7, 16),
    ),
    "Llama-3-70B, 24 GiB": Case(
        LLAMA_3_70B, 24 * GIB, 256 * GIB, DESKTOP, "cuda",
        Workload(rows=5000, longest_sequence=2000),
        (256, 2048), (4, 13), (0, 20), (30, 200),
    ),
    "tiny, 400 KiB": Case(
        TINY, 400 * KIB, 64 * MIB, TWO_CORES, "emulated",
        Workload(rows=20, longest_sequence=128),
        (1, 20), (0, 4), (0, 0), (100, 1e6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_plans_for_machines_people_have_are_sensible(name: str) -> None:
    case = CASES[name]
    got = plan(case.shape, case.device, case.host, case.rates, case.kind, case.workload)
    layers = len(case.shape.layers)
    resident = layers if got.resident_layers is None else len(got.resident_layers)
    found = (got.sequences, resident, len(got.disk_layers), got.predicted_tokens_per_s)
    print(name, got)
    bounds = (case.sequences, case.resident, case.disk, case.tokens_per_s)
    assert all(low <= x <= high for x, (low, high) in zip(found, bounds, strict=True)), found
    assert got.batches * got.prefill_tokens >= 8 * got.sequences or case.kind == "emulated"


def test_what_fits_is_all_resident() -> None:
    got = plan(LLAMA_2_13B, 120 * GIB)
    assert got.resident_layers is None
    assert (got.workspace_blocks, got.slots, got.offloads) == (0, 0, False)
    assert got.block_tokens == 256


def test_weights_that_leave_no_room_for_kv_send_it_to_the_host() -> None:
    got = plan(LLAMA_2_13B, LLAMA_2_13B.weight_bytes + GIB)
    assert got.workspace_blocks > 0
    assert got.sequences >= 8


def test_streamed_weights_leave_the_kv_where_it_is_if_that_costs_little() -> None:
    shape = model(32, 2048, 16, 2, 64, 8192, 32_000)
    slow = rates(5e12, 64, 1e12, 50e9)
    got = plan(shape, shape.weight_bytes / 2, machine=slow, workload=Workload(64, 1, 544, 544))
    assert got.workspace_blocks == 0
    assert got.resident_layers is not None


def test_kv_off_the_device_lies_in_small_blocks() -> None:
    assert plan(LLAMA_2_13B, 16 * GIB).block_tokens == 16


def test_only_what_the_host_cannot_hold_is_on_the_disk() -> None:
    roomy, tight = plan(LLAMA_3_70B, 24 * GIB), plan(LLAMA_3_70B, 24 * GIB, 64 * GIB)
    assert roomy.disk_layers == ()
    assert roomy.staging_slots == 0
    assert len(tight.disk_layers) >= 40
    assert tight.staging_slots == 2
    assert sum(tight.host_arenas.values()) <= 64 * GIB


def test_a_processor_streams_from_the_disk_and_keeps_the_kv() -> None:
    shape = model(32, 3072, 24, 8, 128, 8192, 32_000)
    got = plan(shape, 1.5 * GIB, 1.5 * GIB, TWO_CORES, "cpu", Workload(500, 1, 400, 300))
    assert got.resident_layers is not None
    assert len(got.disk_layers) == 32 - len(got.resident_layers) >= 25
    assert got.kv_blocks > 0
    assert got.workspace_blocks == 0


def test_what_the_process_holds_already_counts() -> None:
    shape = model(32, 3072, 24, 8, 128, 8192, 32_000)
    workload = Workload(500, 1, 400, 300)
    free = plan(shape, 3 * GIB, 3 * GIB, TWO_CORES, "cpu", workload, beside=GIB)
    assert free.arenas["beside"] == GIB
    assert sum(free.arenas.values()) <= 3 * GIB


def test_batches_and_their_size_are_kept_as_asked() -> None:
    got = plan(LLAMA_2_13B, 16 * GIB, policy=PolicyAsked(batch_size=7, batches=5))
    assert (got.batch_size, got.batches, got.sequences) == (7, 5, 35)


def test_a_batch_that_is_too_large_runs_in_part() -> None:
    got = plan(LLAMA_2_13B, 4 * GIB, policy=PolicyAsked(batch_size=2000, batches=8))
    assert got.batch_size == 2000
    assert 34 <= got.workspace_blocks < 2000 * 34


def test_no_more_places_than_there_are_samples() -> None:
    got = plan(LLAMA_2_13B, 16 * GIB, workload=Workload(rows=5, samples=2, longest_sequence=544))
    assert got.sequences < 20


@pytest.mark.parametrize("ratio", [0.3, 0.7, 1.0])
def test_a_forced_replay_has_its_rows(ratio: float) -> None:
    policy = PolicyAsked(8, 4, ratio, "tokens")
    workload = Workload(32, 1, 256, 256)
    got = plan(MULTI_HEAD, 330 * MIB, 8 * GIB, TWO_CORES, "emulated", workload, policy)
    assert got.workspace_blocks > 0
    assert got.recompute_form == "tokens"
    replayed = ratio * got.workspace_blocks * got.block_tokens
    assert got.most_rows >= got.prefill_tokens + min(replayed, 8 * 256)


@pytest.mark.parametrize("ratio", [None, 0.3, 1.0])
def test_activations_have_rooms_of_their_own(ratio: float | None) -> None:
    policy = PolicyAsked(8, 4, ratio, "activations")
    workload = Workload(32, 1, 256, 256)
    got = plan(MULTI_HEAD, 200 * MIB, 8 * GIB, TWO_CORES, "emulated", workload, policy)
    assert got.recompute_form == "activations"
    assert got.activation_blocks >= (ratio or 1.0) * got.workspace_blocks
    assert got.host_arenas["activations"] > 0


def test_where_recompute_cannot_pay_there_is_no_form_and_a_reason() -> None:
    got = plan(LLAMA_3_70B, 24 * GIB, 512 * GIB, DESKTOP)
    assert got.recompute_form == "none"
    assert got.workspace_blocks == 0 or any("cannot pay" in reason for reason in got.reasons)


def test_a_ratio_that_has_no_effect_is_told() -> None:
    got = plan(LLAMA_2_13B, 120 * GIB, policy=PolicyAsked(recompute=0.5))
    assert "all KV is resident: the recompute ratio asked for has no effect" in got.reasons


def test_the_smallest_room_is_two_slots_and_64_kib_beside_the_kv() -> None:
    weights, workload = sizes(TINY), Workload(rows=4, longest_sequence=128)
    kv = BUFFERS * 8 * TINY.kv_block_bytes(16)
    least = weights.outer + 2 * max(weights.layers) + kv + 64 * KIB
    got = plan(TINY, least, 64 * MIB, TWO_CORES, "emulated", workload)
    assert sum(got.arenas.values()) <= least
    assert got.context >= 128


def test_where_it_must_be_prefill_takes_one_token_at_a_time() -> None:
    weights, workload = sizes(TINY), Workload(rows=4, longest_sequence=128)
    passing = workspace_bytes(TINY, 1) + logits_bytes(TINY, 1)
    kv = BUFFERS * 8 * TINY.kv_block_bytes(16) + BUFFERS * TINY.kv_block_bytes(16) // 16
    least = weights.outer + 2 * max(weights.layers) + kv + passing
    got = plan(TINY, least, 64 * MIB, TWO_CORES, "emulated", workload)
    assert (got.prefill_tokens, got.sequences, got.most_rows) == (1, 1, 1)
    with pytest.raises(DoesNotFitError):
        plan(TINY, least - 1, 64 * MIB, TWO_CORES, "emulated", workload)


def test_a_layer_larger_than_half_the_device_is_refused_with_the_sum() -> None:
    shape = model(8, 4096, 32, 32, 128, 11_008, 1000)
    with pytest.raises(DoesNotFitError) as refused:
        plan(shape, 1.5 * max(sizes(shape).layers))
    said = str(refused.value)
    assert f"slots {2 * max(sizes(shape).layers) / MIB:,.0f} MiB" in said
    assert "A layer must fit 2 times" in said
    assert "limits.gpu_memory allows" in said


def test_a_host_that_cannot_hold_one_context_is_refused_with_its_sum() -> None:
    with pytest.raises(DoesNotFitError, match=r"limits\.cpu_memory allows 100 MiB"):
        plan(LLAMA_2_13B, 3 * GIB, 100 * MIB)


def test_small_sums_are_told_in_kib() -> None:
    with pytest.raises(DoesNotFitError, match=r"slots \d+ KiB"):
        plan(TINY, 50 * KIB, 64 * MIB, TWO_CORES, "emulated", Workload(longest_sequence=128))


def test_a_context_that_is_cut_is_told() -> None:
    got = plan(LLAMA_3_70B, 24 * GIB, 150 * GIB, workload=Workload(rows=100))
    assert got.context < LLAMA_3_70B.context
    told = f"the KV cache holds {got.context:,} tokens of a sequence: longer rows are refused"
    assert told in got.reasons


def test_a_longest_sequence_that_is_known_finds_room() -> None:
    got = plan(LLAMA_3_70B, 24 * GIB, workload=Workload(rows=100, longest_sequence=30_000))
    assert got.context == LLAMA_3_70B.context or got.context >= 30_000


def test_unequal_layers_are_summed_as_they_are() -> None:
    shape = replace(LLAMA_2_13B, context=1024)
    layers = tuple(600 * MIB if i % 3 else 800 * MIB for i in range(40))
    weights = WeightSizes(layers, GIB)
    got = plan(shape, 16 * GIB, weights=weights)
    assert (
        sum(got.arenas.values()) == device_bytes(shape, weights, got, 0, gathers=True) <= 16 * GIB
    )
