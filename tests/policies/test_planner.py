"""What fits stays where it is, unless it leaves a GPU too little room for its KV."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.policies.machines import GIB, model, rates, sizes
from tightrun.policies.case import Case
from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import Budget, Hardware
from tightrun.policies.plan import Workload
from tightrun.policies.planner import JobPlan, is_streamed, plan_job
from tightrun.policies.profile import ModelProfile

LLAMA_3_8B = model(32, 4096, 32, 8, 128, 14_336, 128_256, context=8192)
PROFILE = ModelProfile(
    "llama",
    "bfloat16",
    LLAMA_3_8B,
    sizes(LLAMA_3_8B),
    sizes(LLAMA_3_8B).layers,
    recipe_of(LLAMA_3_8B, projects=False),
    GIB,
)
H200 = rates(7e14, 128, 4e12, 55e9)
JOB = Workload(
    rows=256, longest_sequence=544, typical_sequence=544, typical_output=32, most_output=32
)


def planned(gib: float, job: Workload = JOB, device: str = "cuda:0") -> JobPlan:
    hardware = card(gib, device)
    case = Case(PROFILE, hardware, H200, job)
    found = plan_job(case)
    assert is_streamed(case) == found.plan.offloads
    return found


def card(gib: float, device: str = "cuda:0") -> Hardware:
    own, host = Budget(int(gib * GIB), "gpu"), Budget(100 * GIB, "host")
    return Hardware(device, own, host if device != "cpu" else own, cores=16)


def test_a_card_that_has_room_for_a_few_sequences_only_streams_for_many() -> None:
    cramped = planned(15.9)
    assert cramped.plan.offloads
    assert cramped.plan.sequences > 16
    assert cramped.predicted is not None
    few = planned(15.9, replace(JOB, rows=2))
    assert not few.plan.offloads
    assert few.predicted is not None
    assert cramped.predicted.output_tokens_per_s > 2 * few.predicted.output_tokens_per_s


@pytest.mark.parametrize(("gib", "device"), [(40, "cuda:0"), (80, "cuda:0"), (19, "cpu")])
def test_what_fits_with_room_stays(gib: float, device: str) -> None:
    assert not planned(gib, device=device).plan.offloads
