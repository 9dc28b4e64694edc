"""What would help, and what would make a job fit: each is tried by planning with it."""

from __future__ import annotations

import pytest

from tests.policies.machines import DESKTOP, GIB, LLAMA_3_70B, sizes
from tightrun.policies.advice import nearest_that_fit, what_would_help
from tightrun.policies.case import Case
from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import Budget, Hardware
from tightrun.policies.plan import DoesNotFitError, Workload
from tightrun.policies.planner import plan_job
from tightrun.policies.profile import ModelProfile

SIZES = sizes(LLAMA_3_70B)
PROFILE = ModelProfile(
    "Llama", "bfloat16", LLAMA_3_70B, SIZES, SIZES.layers, recipe_of(LLAMA_3_70B), 0
)
WORKLOAD = Workload(10_000, 1, 2000, typical_output=237, prompts=(100, 300, 600))


def machine(device_gib: float, host_gib: float) -> Hardware:
    return Hardware(
        "cuda:0",
        Budget(int(device_gib * GIB), "limits.gpu_memory"),
        Budget(int(host_gib * GIB), "limits.cpu_memory"),
        16,
    )


def test_a_job_held_up_by_the_disk_is_helped_most_by_host_memory() -> None:
    planned = plan_job(Case(PROFILE, machine(24, 130), DESKTOP, WORKLOAD))
    advice = what_would_help(planned)
    assert advice[0].key == "cpu_memory"
    assert advice[0].gain > 0.2
    assert len(advice) <= 3
    assert [x.gain for x in advice] == sorted((x.gain for x in advice), reverse=True)


def test_settings_that_are_named_really_fit() -> None:
    small = machine(3, 130)
    long = Workload(100, 1, 100_000)
    with pytest.raises(DoesNotFitError):
        plan_job(Case(PROFILE, small, DESKTOP, long))
    found = nearest_that_fit(Case(PROFILE, small, DESKTOP, long))
    assert found
    mib = next(int(x.value.removesuffix("MiB")) for x in found if x.key == "limits.gpu_memory")
    plan_job(Case(PROFILE, machine(mib / 1024, 130), DESKTOP, long))
