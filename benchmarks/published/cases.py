"""What was published, under which settings, and what we assume where nothing was said.

Figures marked "evidence" are those of this project's notes on the papers; those marked "recalled"
were written down from memory and not looked up again: read them with that in mind. No case was left
out because it does not fit, and no constant was chosen for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean

from benchmarks.published.machines import (
    A100_40GB,
    FLEXGEN_T4,
    FLEXGEN_T4_DISK_BYTES_PER_S,
    PAGEABLE_COPY_BYTES_PER_S,
    RTX_4090,
)
from benchmarks.published.models import (
    MIXTRAL_8X7B,
    OPT_6_7B,
    OPT_13B,
    OPT_30B,
    OPT_66B,
    OPT_175B,
)
from benchmarks.published.systems import (
    FLEXGEN,
    FLEXGEN_CPU_ATTENTION,
    LAYER_BY_LAYER,
    Setup,
)
from tightrun.policies.plan import Predicted
from tightrun.policies.shape import ModelShape
from tightrun.policies.simulate import Policy

PROMPT, OUTPUT = 512, 32


@dataclass(frozen=True, slots=True)
class Case:
    """One published figure: tokens/s, or in `gain` cases times as fast as FlexGen."""

    name: str
    published: float
    predict: Callable[[], float]
    source: str
    assumed: str = ""
    gain: bool = False


def _flexgen_opt_30b() -> Predicted:
    return Setup(48, 3, streamed=0.8).predict(
        OPT_30B, FLEXGEN_T4, PROMPT, OUTPUT, FLEXGEN_CPU_ATTENTION
    )


def _flexgen_opt_175b(disk_bytes_per_s: float) -> float:
    rates = replace(FLEXGEN_T4, disk_bytes_per_s=disk_bytes_per_s)
    setup = Setup(32, 8, streamed=1.0, from_disk=0.5, kv_on_disk=True)
    return setup.predict(OPT_175B, rates, PROMPT, OUTPUT, FLEXGEN).output_tokens_per_s


def _accelerate_opt_30b() -> float:
    pinned = FLEXGEN_T4.h2d_bytes_per_s
    pageable = 1 / (1 / PAGEABLE_COPY_BYTES_PER_S + 1 / pinned)
    rates = replace(FLEXGEN_T4, h2d_bytes_per_s=pageable)
    setup = Setup(8, 1, streamed=1.0, kv_away=False)
    return setup.predict(OPT_30B, rates, PROMPT, OUTPUT, LAYER_BY_LAYER).output_tokens_per_s


def _deepspeed_opt_30b() -> float:
    setup = Setup(8, 1, streamed=1.0, kv_away=False)
    return setup.predict(OPT_30B, FLEXGEN_T4, PROMPT, OUTPUT, FLEXGEN).output_tokens_per_s


def _mixtral(setup: Setup, policy: Policy) -> float:
    return setup.predict(MIXTRAL_8X7B, FLEXGEN_T4, 242, 50, policy).output_tokens_per_s


def _kvpr_gain(shape: ModelShape, prompt: int) -> float:
    """Decoding with a part of the KV made again from activations, over FlexGen's order alone."""
    setup = Setup(32, 8, streamed=1.0)

    def decoding(policy: Policy) -> float:
        return setup.predict(shape, A100_40GB, prompt, OUTPUT, policy).decode_tokens_per_s

    return decoding(replace(FLEXGEN, form="activations")) / decoding(FLEXGEN)


def _hybridserve_gain(shape: ModelShape) -> float:
    """A job with activations in place of a part of the KV, over FlexGen."""
    setup = Setup(32, 8, streamed=1.0)

    def rate(policy: Policy) -> float:
        return setup.predict(shape, RTX_4090, 1024, 128, policy).output_tokens_per_s

    return rate(Policy("adaptive", form="activations")) / rate(FLEXGEN)


_FLEXGEN_PAPER = "FlexGen (arXiv 2303.06865), T4 16 GB, prompt 512, 32 new tokens"
_MOE_PAPER = "MoE-Lightning (arXiv 2411.11217), T4, prompt 242, 50 new tokens; recalled"

CASES = (
    Case(
        "FlexGen OPT-30B on a T4",
        7.32,
        lambda: _flexgen_opt_30b().output_tokens_per_s,
        f"{_FLEXGEN_PAPER}; evidence",
        "48 x 3 sequences, 20 % of the weights on the card, KV and its attention on the host",
    ),
    Case(
        "FlexGen OPT-30B on a T4, decode",
        11.52,
        lambda: _flexgen_opt_30b().decode_tokens_per_s,
        f"{_FLEXGEN_PAPER}; evidence",
        "as above; 31 passes, without the prefill",
    ),
    Case(
        "Accelerate OPT-30B on a T4",
        0.62,
        _accelerate_opt_30b,
        f"{_FLEXGEN_PAPER}; evidence, its batch of 8 recalled",
        "KV on the card, all weights from memory that is not pinned, nothing overlaps",
    ),
    Case(
        "DeepSpeed ZeRO-Inference OPT-30B on a T4",
        0.60,
        _deepspeed_opt_30b,
        f"{_FLEXGEN_PAPER}; evidence",
        "a batch of 8 as for Accelerate, pinned weights, the next layer's behind this one's",
    ),
    Case(
        "FlexGen OPT-175B on a T4, disk at its fitted rate",
        0.69,
        lambda: _flexgen_opt_175b(FLEXGEN_T4.disk_bytes_per_s),
        f"{_FLEXGEN_PAPER}; its policy recalled",
        "32 x 8 sequences, half of the weights and all KV on the disk",
    ),
    Case(
        "FlexGen OPT-175B on a T4, disk as described",
        0.69,
        lambda: _flexgen_opt_175b(FLEXGEN_T4_DISK_BYTES_PER_S),
        f"{_FLEXGEN_PAPER}; its policy and the disk's 2 GB/s recalled",
        "32 x 8 sequences, half of the weights and all KV on the disk",
    ),
    Case(
        "FlexGen Mixtral 8x7B on a T4",
        22.69,
        lambda: _mixtral(Setup(32, 61, streamed=1.0), FLEXGEN),
        _MOE_PAPER,
        "32 x 61 sequences, all weights and KV on the host; FlexGen's rates of its own T4",
    ),
    Case(
        "FlexGen Mixtral 8x7B on a T4, attention on the CPU",
        16.90,
        lambda: _mixtral(Setup(32, 61, streamed=1.0), FLEXGEN_CPU_ATTENTION),
        _MOE_PAPER,
        "as above, KV attended on the host while the card waits",
    ),
    Case(
        "MoE-Lightning Mixtral 8x7B on a T4",
        26.35,
        lambda: _mixtral(Setup(36, 26, streamed=1.0), Policy("adaptive", host_attention="beside")),
        _MOE_PAPER,
        "36 x 26 sequences, KV attended on the host beside the card, weights in slices",
    ),
    Case(
        "KVPR over FlexGen, the largest gain",
        1.46,
        lambda: max(
            _kvpr_gain(shape, prompt)
            for shape in (OPT_6_7B, OPT_13B, OPT_30B)
            for prompt in (256, 512, 1024)
        ),
        "KVPR (arXiv 2411.17089), A100 40 GB, PCIe 4.0; evidence, its setting recalled",
        "32 x 8 sequences, weights and KV on the host, 32 new tokens",
        gain=True,
    ),
    Case(
        "HybridServe over FlexGen, the mean gain",
        2.19,
        lambda: mean(_hybridserve_gain(shape) for shape in (OPT_6_7B, OPT_13B, OPT_30B, OPT_66B)),
        "HybridServe (arXiv 2501.01792), RTX 4090, PCIe 4.0; evidence, its setting recalled",
        "32 x 8 sequences, weights and KV on the host, prompt 1024, 128 new tokens",
        gain=True,
    ),
)
