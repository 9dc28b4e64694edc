"""One setting: the plan that was chosen, against other plans that the search could have chosen.

Every plan runs the whole job once; the best three of the others and the chosen one take turns
three times more, and those runs count. A run that is clearly slower than the chosen one is ended.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benchmarks.engine_runs import OpenJob
from benchmarks.plan_accuracy.figures import gap
from benchmarks.plan_accuracy.settings import CHOICE_SECONDS, QUICK_SECONDS, Setting, draw
from benchmarks.plan_accuracy.trial import describe, describe_job, measure, plan
from benchmarks.plan_accuracy.ways import others, way_of
from benchmarks.report import say
from tightrun.cli.planning import Planned
from tightrun.policies.offload_plan import possible_plans
from tightrun.policies.plan import Plan
from tightrun.policies.planner import predict

OTHERS, QUICK_OTHERS = 20, 4
BEST, AGAIN = 3, 3
# A run that has taken so many times as long as the chosen plan's is not the best.
SLOWER = 1.2


def main() -> None:
    told = argparse.ArgumentParser(
        prog="python -m benchmarks.plan_accuracy.choice", description=__doc__
    )
    told.add_argument("--setting", type=int, required=True, help="which of the seed's settings")
    told.add_argument("--seed", type=int, default=0)
    told.add_argument("--runs", type=int, default=1, help="as many times three for the best")
    told.add_argument("--workdir", type=Path, required=True)
    told.add_argument("--quick", action="store_true", help="jobs of a moment")
    arguments = told.parse_args()
    seconds = QUICK_SECONDS if arguments.quick else CHOICE_SECONDS
    setting = draw(arguments.seed, seconds)[arguments.setting]
    print(json.dumps(Choice(setting, arguments).measure()))


class Choice:
    """The measurement on one setting."""

    def __init__(self, setting: Setting, told: argparse.Namespace) -> None:
        self._setting = setting
        self._again = AGAIN * told.runs
        self._layers = setting.shape.layers
        self._described = describe_job(setting, told.seed, told.workdir)
        self._planned = plan(self._described)
        assert self._planned.job_plan is not None
        chosen = self._planned.job_plan.plan
        count = QUICK_OTHERS if told.quick else OTHERS
        found = others(chosen, possible(self._planned), self._layers, count, Random(told.seed))
        self._chosen = f"chosen: {way_of(chosen, self._layers)}"
        self._plans = {self._chosen: chosen} | {str(way): plan for way, plan in found.items()}

    def measure(self) -> dict[str, Any]:
        """All plans once, then the best and the chosen one by turns."""
        self._run(self._chosen)  # the first run of a process is slower than those that follow
        first = {self._chosen: self._run(self._chosen)}
        limit_s = SLOWER * self._setting.output_tokens / first[self._chosen]
        for name in self._plans:
            if name != self._chosen:
                first[name] = self._run(name, limit_s)
        ranked = sorted(set(first) - {self._chosen}, key=lambda name: -first[name])
        again: dict[str, list[float]] = {name: [] for name in (self._chosen, *ranked[:BEST])}
        for _ in range(self._again):
            for name, speeds in again.items():
                speeds.append(self._run(name))
        return self._found(first, again)

    def _found(
        self, first: Mapping[str, float], again: Mapping[str, list[float]]
    ) -> dict[str, Any]:
        speeds = dict(again)
        chosen = speeds.pop(self._chosen)
        worst, best = gap(chosen, speeds)
        return {
            "name": self._setting.name,
            "said": f"the best of {len(first) - 1} others is {worst:+.1%} as fast",
            "told": describe(self._setting),
            "gap": worst,
            "ran": len(first) - 1,
            "chosen": {"way": self._chosen, "tokens_per_s": median(chosen)},
            "best": {"way": best, "tokens_per_s": median(speeds[best])},
            "first": [
                {"way": name, "tokens_per_s": speed, "predicted": self._predicted(name)}
                for name, speed in first.items()
            ],
            "again": dict(again),
        }

    def _run(self, name: str, most_s: float | None = None) -> float:
        """Output tokens/s of the job with that plan; of one that was ended, an upper bound."""
        sizes = self._plans[name]
        with OpenJob(self._described, lambda _: sizes, self._planned) as opened:
            speed: float = measure(opened, self._setting, most_s)["output_tokens_per_s"]
        say(f"{name}: {speed:,.1f} tokens/s")
        return speed

    def _predicted(self, name: str) -> float:
        job_plan = self._planned.job_plan
        assert job_plan is not None
        return predict(self._plans[name], job_plan.case).output_tokens_per_s


def possible(planned: Planned) -> list[Plan]:
    """Every plan that the search looked at."""
    found = planned.job_plan
    assert found is not None
    return list(possible_plans(replace(found.case, context=found.plan.context)))


if __name__ == "__main__":
    main()
