"""What `benchmarks.plan_accuracy` draws, and what it makes of its measurements."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from benchmarks.plan_accuracy.__main__ import figures
from benchmarks.plan_accuracy.figures import error, gap, measured_binding, setting_figures
from benchmarks.plan_accuracy.models import Shape
from benchmarks.plan_accuracy.settings import CHOICES, FASTEST_LINK, SLOTS, draw
from benchmarks.plan_accuracy.ways import apart, others, way_of
from benchmarks.random_model import shards
from tightrun.core import StepRecord
from tightrun.policies.plan import Plan


def step(**seconds: float) -> StepRecord:
    told: dict[str, Any] = {
        **{"run": 1, "iteration": 1, "phase": "decode", "started_s": 0.0, "elapsed_s": 1.0},
        **{"batches": 1, "sequences": 4, "prefill_tokens": 0, "decode_tokens": 4},
        "context_tokens": 9,
    }
    return StepRecord(**{**told, **seconds})


def plan(batches: int = 1, batch_size: int = 8, prefill: int = 512, speed: float = 1.0) -> Plan:
    return Plan(batches=batches, batch_size=batch_size, prefill_tokens=prefill, block_tokens=16,
                kv_blocks=9, context=99, predicted_tokens_per_s=speed)  # fmt: skip


def shown(off: float, speed: float = 10.0, binding: str = "compute") -> dict[str, Any]:
    told = {"planned": "compute", "measured": binding}
    return {
        "error": off, "measured_tokens_per_s": speed, "binding": told, "others_share": 0.01
    }  # fmt: skip


def test_a_prediction_of_twice_the_speed_is_off_by_the_whole() -> None:
    assert error(20.0, 10.0) == 1.0
    assert error(5.0, 10.0) == -0.5


def test_errors_count_by_their_size_whichever_way_they_go() -> None:
    found = setting_figures([shown(0.1), shown(-0.3, 50.0, "link"), shown(-0.05)])
    assert (found["median_error"], found["worst_error"], found["settings"]) == (0.1, 0.3, 3)
    assert (found["span"], found["bindings"]) == (5.0, {"compute": 2, "link": 1})
    assert found["bindings_planned_right"] == 2


def test_settings_that_ran_beside_other_work_are_counted() -> None:
    found = setting_figures([shown(0.1), shown(0.2) | {"others_share": 0.3}])
    assert found["disturbed"] == 1


def test_a_setting_without_a_figure_is_counted_and_not_left_out_in_silence() -> None:
    found = setting_figures([shown(0.1), {"failed": "killed"}])
    assert (found["settings"], found["failed"]) == (1, 1)
    assert setting_figures([{"failed": "killed"}])["median_error"] is None


def test_the_busiest_lane_binds_and_computing_is_memory_where_it_mostly_reads() -> None:
    steps = [step(compute_s=0.6, h2d_s=0.5), step(compute_s=0.4, h2d_s=0.4)]
    assert measured_binding(steps, memory_share=0.2) == "compute"
    assert measured_binding(steps, memory_share=0.7) == "memory"
    assert measured_binding([step(compute_s=0.4, h2d_s=0.5)], memory_share=0.7) == "link"
    assert measured_binding([step(compute_s=0.4, disk_s=0.5)], memory_share=0.0) == "disk"


def test_the_gap_is_that_of_the_best_other_by_medians() -> None:
    found, best = gap([10.0, 11.0, 90.0], {"a": [10.0, 12.0, 11.5], "b": [9.0, 50.0, 9.0]})
    assert (round(found, 4), best) == (round(11.5 / 11.0 - 1, 4), "a")


def test_a_part_that_was_not_measured_is_null() -> None:
    found = figures({"settings": [shown(0.1)], "choice": None})
    assert (found["settings"], found["choice_gap"]) == (1, None)
    gaps = {"settings": None, "choice": [{"gap": -0.02}, {"gap": 0.03}]}
    assert figures(gaps) == {
        "settings": None, "median_error": None, "worst_error": None, "choice_gap": 0.03
    }  # fmt: skip


def test_every_way_is_another_than_the_chosen_one_and_all_are_different() -> None:
    possible = [plan(k, n, speed=k * n) for k in (1, 2, 4) for n in (1, 2, 4, 8, 16, 32)]
    found = others(plan(2, 8), possible, layers=4, count=10, random=Random(0))
    assert len(found) == 10
    assert way_of(plan(2, 8), 4) not in found
    assert way_of(plan(2, 16), 4) in found, "its neighbours are among them"
    assert way_of(plan(4, 32), 4) in found, "and what promises most"


def test_fewer_ways_than_asked_for_are_all_taken() -> None:
    assert len(others(plan(), [plan(), plan(2), plan(4)], 4, 20, Random(0))) == 2


def test_ways_are_apart_by_doublings_and_shares() -> None:
    one, other = way_of(plan(1, 8), 4), way_of(plan(2, 32), 4)
    assert apart(one, other, 4) == 3.0
    assert apart(one, one._replace(resident=2), 4) == 2.0


def test_a_seed_draws_the_same_settings_and_another_seed_others() -> None:
    assert draw(0) == draw(0)
    assert all(one != other for one, other in zip(draw(0), draw(1), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_is_of_every_kind_in_any_seed(seed: int) -> None:
    settings = draw(seed)
    aims = [setting.aim for setting in settings]
    assert len(settings) >= 12
    assert all(aims.count(aim) >= 2 for aim in ("compute", "link", "disk", "memory"))
    assert {setting.policy for setting in settings} == {"adaptive", "static", "sync"}
    for setting in settings:
        links = (setting.hardware.get("h2d", "0MB/s"), setting.hardware.get("d2h", "0MB/s"))
        assert sum(float(x.removesuffix("MB/s")) for x in links) <= 1000
        assert float(links[0].removesuffix("MB/s")) <= FASTEST_LINK / 1e6


def test_plans_are_chosen_among_on_settings_of_every_kind() -> None:
    aims = {slot.name: slot.aim for slot in SLOTS}
    assert {aims[name] for name in CHOICES} == {"compute", "link", "disk", "memory"}


@pytest.mark.parametrize("experts", [0, 4])
def test_a_shape_has_the_bytes_of_the_model_that_is_made_of_it(experts: int) -> None:
    shape = Shape(128, 2, 4, 2, 32, 192, vocab=500, experts=experts)
    named = dict(shards(shape.config(context=256)))
    outer = sum(size.numel() for name, size in named.pop("outer").items() if "norm" not in name)
    layers = sum(size.numel() for layer in named.values() for size in layer.values())
    assert (shape.outer_bytes, shape.weight_bytes) == (4 * outer, 4 * layers)
