"""Which form pays, against the gains that were worked out by hand and published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.policies.machines import (
    DESKTOP,
    H200,
    LLAMA_2_13B,
    LLAMA_3_70B,
    MULTI_HEAD,
    OPT_30B,
    T4,
    TWO_CORES,
)
from tightrun.policies.forms import choose_form, ideal_gain, recipe_of
from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape


def test_a_recipe_counts_all_layers() -> None:
    recipe = recipe_of(MULTI_HEAD)
    assert recipe.kv_bytes == 12 * 2 * 1024 * 2
    assert recipe.activation_bytes == 12 * 1024 * 2
    assert recipe.projection_flops == 12 * 4 * 1024**2
    assert recipe.replay_flops == MULTI_HEAD.dense_flops_per_token


def test_activations_spare_half_of_the_bytes_of_plain_multi_head_attention() -> None:
    recipe = recipe_of(MULTI_HEAD)
    assert recipe.saved_bytes("activations") == recipe.kv_bytes // 2
    assert recipe.saved_bytes("tokens") == recipe.kv_bytes


@pytest.mark.parametrize(
    ("shape", "flops", "link", "gain"),
    [
        (OPT_30B, 65e12, 12e9, 1.12),
        (LLAMA_2_13B, 165e12, 25e9, 1.20),
        (LLAMA_3_70B, 7e14, 55e9, 1.03),
    ],
)
def test_tokens_gain_one_and_the_share_of_fetching_in_replaying(
    shape: ModelShape, flops: float, link: float, gain: float
) -> None:
    machine = Rates(((2048, flops),), 1e12, link, link)
    recipe = recipe_of(shape)
    by_hand = 1 + flops * recipe.kv_bytes / (recipe.replay_flops * link)
    assert ideal_gain(recipe, machine, "tokens") == pytest.approx(by_hand)
    assert by_hand == pytest.approx(gain, abs=0.02)


def test_activations_gain_at_most_twice() -> None:
    fast = replace(TWO_CORES, flops_per_s=((1, 1e18),))
    assert ideal_gain(recipe_of(MULTI_HEAD), fast, "activations") == pytest.approx(2.0)


def test_a_slow_processor_gains_little_from_activations() -> None:
    slow = replace(TWO_CORES, flops_per_s=((1, 1e6),))
    assert ideal_gain(recipe_of(MULTI_HEAD), slow, "activations") == pytest.approx(1.0, abs=0.01)


def test_without_a_link_there_is_nothing_to_gain() -> None:
    alone = replace(TWO_CORES, h2d_bytes_per_s=0.0)
    assert ideal_gain(recipe_of(MULTI_HEAD), alone, "tokens") == 1.0


@pytest.mark.parametrize("machine", [T4, H200, TWO_CORES])
def test_plain_multi_head_models_recompute_from_activations(machine: Rates) -> None:
    assert choose_form(recipe_of(LLAMA_2_13B), machine, "auto", None)[0] == "activations"


def test_where_projecting_again_is_impossible_tokens_are_replayed() -> None:
    recipe = recipe_of(LLAMA_2_13B, projects=False)
    assert choose_form(recipe, H200, "auto", None)[0] == "tokens"


def test_where_no_recompute_pays_it_says_so() -> None:
    form, why = choose_form(recipe_of(LLAMA_3_70B), DESKTOP, "auto", None)
    assert form == "none"
    assert "cannot pay" in why


def test_wide_activations_are_no_form_for_grouped_heads() -> None:
    assert recipe_of(LLAMA_3_70B).saved_bytes("activations") < 0
    assert choose_form(recipe_of(LLAMA_3_70B), DESKTOP, "activations", None)[0] == "none"


def test_a_forced_ratio_takes_the_form_that_does_not_pay() -> None:
    assert choose_form(recipe_of(LLAMA_3_70B), DESKTOP, "auto", 0.3)[0] == "tokens"
    assert choose_form(recipe_of(LLAMA_3_70B), DESKTOP, "activations", 0.3)[0] == "activations"


def test_activations_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="use tokens or auto"):
        choose_form(recipe_of(LLAMA_2_13B, projects=False), H200, "activations", None)
