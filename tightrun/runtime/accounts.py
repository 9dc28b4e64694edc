"""What a run has done so far: the counts behind the progress view, the report and the summary."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field, fields

from tightrun.policies.cost import PassBound
from tightrun.policies.measured import Comparison
from tightrun.policies.output_shares import Learnt


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """The engine as it is now, for a progress view. Tokens are totals since the run began.

    `mean_output_tokens` are those of a sequence as learnt so far, 0.0 while nothing is known;
    `planned_seconds` what the run will take in all by the plan and the passes so far, 0.0 where
    nobody can tell.
    """

    running: int
    waiting: int
    prompt_tokens: int
    output_tokens: int
    predicted_remaining_tokens: int
    gpu_bytes: int
    gpu_budget: int
    cpu_bytes: int
    cpu_budget: int
    planned_output_tokens_per_s: float = 0.0
    mean_output_tokens: float = 0.0
    planned_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineSummary:
    """A whole run in numbers. `bound_share` is the least possible time over the time taken."""

    passes: int
    seconds: float
    prompt_tokens: int
    output_tokens: int
    shared_tokens: int
    preemptions: int
    flops: float
    flops_per_s: float
    bound_share: float
    binding: str
    idle_s: float
    peak_gpu_bytes: int
    peak_cpu_bytes: int
    h2d_bytes_per_s: float = 0.0
    d2h_bytes_per_s: float = 0.0
    disk_bytes_per_s: float = 0.0
    recompute_ratio: float = 0.0
    recompute_form: str = ""
    comparison: Comparison = field(default_factory=Comparison)
    learnt: Learnt = field(default_factory=Learnt)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the lanes of a device have done so far, or in one pass: bytes, and seconds busy."""

    computing_s: float = 0.0
    h2d_s: float = 0.0
    d2h_s: float = 0.0
    disk_s: float = 0.0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    disk_bytes: int = 0
    weight_bytes: int = 0
    kv_bytes_in: int = 0
    kv_bytes_out: int = 0
    waited_s: float = 0.0

    def since(self, earlier: Traffic) -> Traffic:
        """What has come about since an earlier reading."""
        return Traffic(*(getattr(self, x.name) - getattr(earlier, x.name) for x in fields(Traffic)))


@dataclass(slots=True)
class Accounts:
    """Sums over the passes of a run; seconds, tokens and FLOPs."""

    passes: int = 0
    seconds: float = 0.0
    bound_s: float = 0.0
    flops: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    shared_tokens: int = 0
    idle_s: float = 0.0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    disk_bytes: int = 0
    offloaded_tokens: int = 0
    recomputed_tokens: int = 0
    binding_s: dict[str, float] = field(default_factory=dict)

    def add(self, flops: float, bound: PassBound, elapsed_s: float, traffic: Traffic) -> None:
        """Enter one pass: its FLOPs, its bound, the time it took, what it moved."""
        self.passes += 1
        self.seconds += elapsed_s
        self.flops += flops
        self.bound_s += bound.bound_s
        self.binding_s[bound.binding] = self.binding_s.get(bound.binding, 0) + bound.bound_s
        self.idle_s += max(0.0, elapsed_s - traffic.computing_s)
        self.h2d_bytes += traffic.h2d_bytes
        self.d2h_bytes += traffic.d2h_bytes
        self.disk_bytes += traffic.disk_bytes

    def lose(self, elapsed_s: float) -> None:
        """Enter a pass that was given up: its time has gone by, and nothing was done."""
        self.seconds += elapsed_s
        self.idle_s += elapsed_s

    @property
    def binding(self) -> str:
        """The resource that set most of the bound."""
        return max(self.binding_s, key=self.binding_s.__getitem__, default="compute")


def peak_rss_bytes() -> int:
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
