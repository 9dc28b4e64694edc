"""Which form a recomputed context takes, tokens or activations, and whether any can pay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape

Form = Literal["tokens", "activations", "none"]
# The distributor makes no change that gains less than a hundredth, so less is not worth a form.
LEAST_GAIN = 1.02


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a token of context costs per form, over all layers: bytes stored, FLOPs to make KV.

    `activation_bytes` 0 says that the model's keys and values cannot be projected again.
    """

    kv_bytes: int
    replay_flops: float
    activation_bytes: int = 0
    projection_flops: float = 0.0

    def saved_bytes(self, form: Form) -> int:
        """Bytes a recomputed token spares the link."""
        return self.kv_bytes - (self.activation_bytes if form == "activations" else 0)

    def flops(self, form: Form) -> float:
        """FLOPs a recomputed token costs."""
        return self.projection_flops if form == "activations" else self.replay_flops


def recipe_of(shape: ModelShape, *, projects: bool = True) -> Recipe:
    """The costs of a model whose attention projects its hidden states to keys and values."""
    kv_width = sum(x.key_width + x.value_width for x in shape.layers)
    stored = len(shape.layers) * shape.hidden * shape.element_bytes
    return Recipe(
        kv_bytes=shape.kv_bytes_per_token,
        replay_flops=shape.dense_flops_per_token,
        activation_bytes=stored if projects else 0,
        projection_flops=2.0 * shape.hidden * kv_width if projects else 0.0,
    )


def ideal_gain(recipe: Recipe, rates: Rates, form: Form) -> float:
    """How many times faster context arrives at best, part fetched and part computed again.

    Both go on at once until they meet: of a token's `kv_bytes / link` seconds, a share is computed.
    """
    if form == "none" or rates.h2d_bytes_per_s <= 0:
        return 1.0
    saved = recipe.saved_bytes(form)
    if saved <= 0:
        return 1.0
    fetch_s = recipe.kv_bytes / rates.h2d_bytes_per_s
    saved_s = saved / rates.h2d_bytes_per_s
    compute_s = recipe.flops(form) / rates.best_flops_per_s
    share = min(1.0, fetch_s / (saved_s + compute_s))
    return fetch_s / max(fetch_s - share * saved_s, share * compute_s)


def choose_form(recipe: Recipe, rates: Rates, asked: str, forced: float | None) -> tuple[Form, str]:
    """The form to recompute in, and a sentence that says why.

    `asked` is `auto`, `tokens` or `activations`; with a `forced` ratio a form that does not pay is
    taken all the same. Raises ValueError for activations where the model has none.
    """
    if asked == "activations" and recipe.activation_bytes == 0:
        raise ValueError(
            "policy.recompute_form: activations was asked for, but the keys and values of this "
            "model cannot be projected again from stored activations; use tokens or auto"
        )
    forms: list[Form] = ["tokens"]
    if recipe.activation_bytes and (
        asked == "activations" or recipe.saved_bytes("activations") > 0
    ):
        forms.append("activations")
    if asked != "auto":
        forms = [form for form in forms if form == asked]
    best = max(forms, key=lambda form: ideal_gain(recipe, rates, form))
    gain = ideal_gain(recipe, rates, best)
    if forced is not None:
        return best, f"recompute ratio {forced:g} is forced, in the form of {best}"
    if gain < LEAST_GAIN:
        return "none", (
            f"recomputing context cannot pay here (at most {max(0.0, gain - 1):.1%} faster): the "
            "recompute ratio stays 0"
        )
    return best, f"context may be recomputed in the form of {best}, at most {gain:.2f} times faster"
