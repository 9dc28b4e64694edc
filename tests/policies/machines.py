"""Models and machines that decisions are tested on, in plain numbers."""

from __future__ import annotations

from tightrun.policies.case import Case, PolicyAsked
from tightrun.policies.forms import recipe_of
from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.plan import Workload
from tightrun.policies.profile import ModelProfile
from tightrun.policies.shape import LayerShape, ModelShape

GB, KIB, MIB, GIB = 10**9, 2**10, 2**20, 2**30


def model(
    layers: int,
    hidden: int,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    wide: int,
    vocab: int,
    *,
    gated: bool = True,
    element_bytes: int = 2,
    context: int = 4096,
    tied: bool = False,
) -> ModelShape:
    """A decoder of equal layers, with gated or plain feed-forward parts."""
    attention = hidden * head_dim * (2 * q_heads + 2 * kv_heads)
    dense = attention + (3 if gated else 2) * hidden * wide
    layer = LayerShape(q_heads, kv_heads, head_dim, head_dim, dense, dense * element_bytes)
    parameters = layers * dense + (1 if tied else 2) * vocab * hidden
    return ModelShape(
        (layer,) * layers,
        hidden,
        vocab,
        parameters,
        parameters * element_bytes,
        hidden * vocab,
        element_bytes,
        wide,
        context,
    )


def sizes(shape: ModelShape) -> WeightSizes:
    """The slabs of a model of equal layers, and what is outside of them."""
    slabs = tuple(layer.weight_bytes for layer in shape.layers)
    return WeightSizes(slabs, shape.weight_bytes - sum(slabs))


def case_of(
    shape: ModelShape,
    hardware: Hardware,
    rates: Rates,
    workload: Workload,
    asked: PolicyAsked | None = None,
    *,
    weights: WeightSizes | None = None,
    context: int | None = None,
    beside: int = 0,
) -> Case:
    """A job for a model of that shape in bfloat16."""
    slabs = weights or sizes(shape)
    profile = ModelProfile(
        "LlamaForCausalLM", "bfloat16", shape, slabs, slabs.layers, recipe_of(shape), beside
    )
    return Case(profile, hardware, rates, workload, asked or PolicyAsked(), context)


def rates(
    peak: float, half: float, memory: float, link: float, *, out: float = 0.0, disk: float = 3e9
) -> Rates:
    """A machine that computes at half its peak with `half` rows, with the same link both ways."""
    rows = (1, 16, 64, 256, 1024, 2048)
    flops = tuple((r, peak * r / (r + half)) for r in rows)
    return Rates(flops, memory, link, out or link, disk)


LLAMA_2_13B = model(40, 5120, 40, 40, 128, 13_824, 32_000)
LLAMA_3_70B = model(80, 8192, 64, 8, 128, 28_672, 128_256, context=131_072)
OPT_30B = model(48, 7168, 56, 56, 128, 28_672, 50_272, gated=False, context=2048, tied=True)
MULTI_HEAD = model(12, 1024, 16, 16, 64, 2816, 32_000)
TINY = model(4, 32, 4, 4, 8, 64, 256, element_bytes=4, context=256)

H200 = rates(700e12, 350, 4e12, 55e9)
T4 = rates(50e12, 100, 300e9, 12e9, out=6e9)
DESKTOP = rates(150e12, 300, 1e12, 25e9)
TWO_CORES = Rates(
    ((1, 1e10), (16, 144e9), (64, 287e9), (256, 373e9), (1024, 395e9), (2048, 390e9)),
    48e9, 260e6, 260e6, 2e9,
)  # fmt: skip
