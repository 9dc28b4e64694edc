"""A run against its plan: the same passes by the rates planned with, and as they really went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tightrun.policies.corrections import Corrections
from tightrun.policies.cost import RESOURCES, PassBound
from tightrun.policies.loads import PassMeasured


@dataclass(frozen=True, slots=True)
class Used:
    """One resource of cost.RESOURCES over the passes of a run.

    `planned_s` are the seconds that the rates planned with give to what it did, `busy_s` those it
    was busy; `planned_per_s` and `measured_per_s` are FLOPs or bytes per busy second. Of `memory`
    nobody can see when it is busy: it counts as long as the device computes. `correction` is the
    factor on its time that the passes had taught in the end.
    """

    resource: str
    planned_s: float
    busy_s: float
    planned_per_s: float
    measured_per_s: float
    correction: float = 1.0

    @property
    def factor(self) -> float:
        """How many times as long as planned it was busy; 1.0 where there is nothing to compare."""
        return self.busy_s / self.planned_s if self.planned_s and self.busy_s else 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a job goes or went. Tokens per second; 0.0 where it is not known."""

    seconds: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Assumed:
    """A mean the plan reckoned with, and as it was found; 0.0 where it is not known."""

    planned: float = 0.0
    measured: float = 0.0

    @property
    def ratio(self) -> float:
        """Measured over planned, 1.0 where one is not known."""
        return self.measured / self.planned if self.planned and self.measured else 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against its plan.

    `passes_planned_s` are the seconds of its passes by the rates planned with, `passes_s` those
    they took. `output`, `prompt` are tokens of a sequence, `together` sequences in a pass.
    `reachable_tokens_per_s` is what the plan would have promised had it known those lengths.
    """

    planned: Pace = Pace()
    measured: Pace = Pace()
    passes: int = 0
    passes_planned_s: float = 0.0
    passes_s: float = 0.0
    resources: tuple[Used, ...] = ()
    output: Assumed = Assumed()
    prompt: Assumed = Assumed()
    together: Assumed = Assumed()
    reachable_tokens_per_s: float = 0.0

    def used(self, resource: str) -> Used | None:
        """What was asked of that resource; None if nothing was."""
        return next((x for x in self.resources if x.resource == resource), None)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Comparison:
        """From what `as_json` gave."""
        made: dict[str, Any] = {
            "planned": Pace(**content["planned"]),
            "measured": Pace(**content["measured"]),
            "resources": tuple(Used(**used) for used in content["resources"]),
            **{name: Assumed(**content[name]) for name in ("output", "prompt", "together")},
        }
        return cls(**{**content, **made})


@dataclass(slots=True)
class _Sum:
    """One resource so far: FLOPs or bytes, and seconds as planned and as measured."""

    amount: float = 0.0
    planned_s: float = 0.0
    busy_s: float = 0.0

    def add(self, amount: float, planned_s: float, busy_s: float) -> None:
        self.amount += amount
        self.planned_s += planned_s
        self.busy_s += busy_s


@dataclass(slots=True)
class Measurements:
    """Passes added up, each as it was planned and as it went."""

    passes: int = 0
    planned_s: float = 0.0
    elapsed_s: float = 0.0
    _sums: dict[str, _Sum] = field(default_factory=lambda: {x: _Sum() for x in RESOURCES})

    def add(
        self,
        planned: PassBound,
        measured: PassMeasured,
        *,
        flops: float,
        memory_bytes: float,
        memory_s: float,
    ) -> None:
        """Enter a pass. `planned` are its times by the rates planned with, for the bytes that
        really moved; `memory_s` is what `memory_bytes` take at the probed rate."""
        m = measured
        self.passes += 1
        self.planned_s += planned.bound_s
        self.elapsed_s += m.elapsed_s
        taken = (
            (flops, planned.compute_s, m.compute_s),
            (memory_bytes, memory_s, m.compute_s),
            (m.link_in_bytes, planned.link_in_s, m.link_in_s),
            (m.link_out_bytes, planned.link_out_s, m.link_out_s),
            (m.disk_bytes, planned.disk_s, m.disk_s),
        )
        for resource, sums in zip(RESOURCES, taken, strict=True):
            self._sums[resource].add(*sums)

    def used(self, corrections: Corrections) -> Iterator[Used]:
        """Every resource that was asked for something."""
        factors = {
            "compute": corrections.compute.factor,
            "h2d": corrections.link_in.factor,
            "d2h": corrections.link_out.factor,
            "disk": corrections.disk.factor,
        }
        for resource, x in self._sums.items():
            if x.amount and x.planned_s and x.busy_s:
                yield Used(
                    resource,
                    x.planned_s,
                    x.busy_s,
                    x.amount / x.planned_s,
                    x.amount / x.busy_s,
                    factors.get(resource, 1.0),
                )
