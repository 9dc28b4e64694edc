"""What a job comes to with other rates, lengths or sizes than it was planned with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrun.policies.corrections import Corrections
from tightrun.policies.forms import Recipe
from tightrun.policies.hardware import Rates
from tightrun.policies.lengths import Lengths
from tightrun.policies.pass_cost import Policy
from tightrun.policies.placement import Placement
from tightrun.policies.plan import Predicted
from tightrun.policies.shape import ModelShape
from tightrun.policies.simulate import simulate


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a plan may change while it runs: sequences of a batch, batches of a pass, prefill
    tokens of a batch. Memory was planned for the largest of each."""

    batch_size: int
    batches: int
    prefill_tokens: int

    @property
    def sequences(self) -> int:
        return self.batch_size * self.batches


@dataclass(frozen=True, slots=True)
class Foresight:
    """A planned job, ready to be simulated; `lengths` and `rates` are those planned with."""

    shape: ModelShape
    recipe: Recipe
    placement: Placement
    policy: Policy
    lengths: Lengths
    rates: Rates

    @property
    def sizes(self) -> Sizes:
        p = self.placement
        return Sizes(p.batch_size, p.batches, p.prefill_tokens)

    def predicted(
        self,
        *,
        rates: Rates | None = None,
        lengths: Lengths | None = None,
        sizes: Sizes | None = None,
    ) -> Predicted:
        """What the job comes to by simulation; what is not given is as planned."""
        s = sizes or self.sizes
        placement = replace(
            self.placement,
            batch_size=s.batch_size,
            batches=s.batches,
            prefill_tokens=s.prefill_tokens,
        )
        return simulate(
            self.shape,
            rates or self.rates,
            self.recipe,
            placement,
            lengths or self.lengths,
            self.policy,
        )

    def lengths_with(
        self, *, prompt: float = 0.0, output: float = 0.0, sequences: int | None = None
    ) -> Lengths:
        """The lengths planned with, with other means (0.0: as planned), for so many sequences
        (None: all)."""
        planned = self.lengths
        scale = prompt / planned.prompt if prompt else 1.0
        most = planned.most_output
        tokens = max(1, round(output)) if output else planned.output
        return replace(
            planned,
            prompts=tuple(max(1, round(scale * x)) for x in planned.prompts),
            output=tokens if most is None else min(tokens, most),
            outputs=tuple(max(1, round(tokens / planned.output * x)) for x in planned.outputs),
            sequences=planned.sequences if sequences is None else sequences,
        )


def corrected_rates(rates: Rates, corrections: Corrections, decode_rows: int) -> Rates:
    """The rates as the passes so far have corrected them.

    Products of more than `decode_rows` rows are those of prefill.
    """
    decode, prefill = corrections.compute.factor, corrections.prefill.factor
    into, out = corrections.link_in.factor, corrections.link_out.factor
    work = rates.work

    def slower(rows: int) -> float:
        return decode if rows <= decode_rows else prefill

    if work is not None:
        work = replace(
            work,
            layer_s=tuple((rows, slower(rows) * s) for rows, s in work.layer_s),
            head_s=tuple((rows, decode * s) for rows, s in work.head_s),
            attended_bytes_per_s=work.attended_bytes_per_s / decode,
            attended_flops_per_s=work.attended_flops_per_s / prefill,
            batch_s=decode * work.batch_s,
            pass_s=decode * work.pass_s,
            attention_s=decode * work.attention_s,
            context_s=decode * work.context_s,
        )
    return replace(
        rates,
        flops_per_s=tuple((rows, rate / slower(rows)) for rows, rate in rates.flops_per_s),
        h2d_bytes_per_s=rates.h2d_bytes_per_s / into,
        d2h_bytes_per_s=rates.d2h_bytes_per_s / out,
        duplex_bytes_per_s=rates.duplex_bytes_per_s / max(into, out),
        disk_bytes_per_s=rates.disk_bytes_per_s / corrections.disk.factor,
        work=work,
    )
