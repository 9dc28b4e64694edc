"""What a plan is made from: a model on a machine, a job, and what a person has set of the plan."""

from __future__ import annotations

from dataclasses import dataclass

from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.plan import Workload
from tightrun.policies.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class PolicyAsked:
    """What a person has set; None or "auto" where the plan may choose.

    `batch_size` are sequences per batch, `batches` batches per pass, `recompute` a ratio; `disk`
    says that layers may be read from the disk in every pass. `name` changes nothing of the plan:
    the policies share it, so that they can be compared.
    """

    batch_size: int | None = None
    batches: int | None = None
    recompute: float | None = None
    form: str = "auto"
    name: str = "adaptive"
    disk: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """A job to be planned. `context` is the most tokens that a sequence may have (None: as many as
    the model takes)."""

    profile: ModelProfile
    hardware: Hardware
    rates: Rates
    workload: Workload
    asked: PolicyAsked = PolicyAsked()
    context: int | None = None

    @property
    def kind(self) -> str:
        """The kind of device: cpu, cuda or emulated."""
        return self.hardware.device.split(":")[0]

    @property
    def window(self) -> int:
        """The most tokens of a sequence."""
        most = self.profile.shape.context
        return min(self.context or most, most)
