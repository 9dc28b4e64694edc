"""What is known comes back from JSON as it was, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tightrun.policies.forms import Recipe
from tightrun.policies.hardware import Rates, WorkTimes
from tightrun.policies.known_json import known_from_json, known_to_json
from tightrun.policies.offload_memory import WeightSizes
from tightrun.policies.profile import Known, ModelProfile
from tightrun.policies.shape import LayerShape, ModelShape

LAYERS = (LayerShape(4, 2, 16, 16, 1000, 2000), LayerShape(4, 2, 16, 16, 1000, 2000, window=8))
SHAPE = ModelShape(LAYERS, 64, 200, 12_000, 24_000, 800, 2, 128, 512)
PROFILE = ModelProfile(
    "LlamaForCausalLM",
    "bfloat16",
    SHAPE,
    WeightSizes((4096, 4096), 3000),
    (8192, 8192),
    Recipe(100, 2000.0, 50, 300.0),
    400_000_000,
)
WORK = WorkTimes(((1, 1e-3), (64, 2e-3)), ((1, 1e-4),), 1e10, 2e11, 1e-4, 2e-4, False, 1e-5, 1e-3)
RATES = Rates(((1, 1e9), (64, 3e10)), 4e10, h2d_bytes_per_s=1e9, duplex_bytes_per_s=2e9, work=WORK)


def as_read(known: Known) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(known_to_json(known)))
    return value


@pytest.mark.parametrize("work", [WORK, None])
def test_it_comes_back_as_it_was(work: WorkTimes | None) -> None:
    known = Known(PROFILE, Rates(((1, 1e9),), 4e10, work=work))
    assert known_from_json(as_read(known)) == known


def test_every_field_is_kept() -> None:
    assert known_from_json(as_read(Known(PROFILE, RATES))).rates == RATES


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("version",), 0, "version 0"),
        (("profile", "name"), 7, "known.profile.name is no str"),
        (("profile", "shape", "hidden"), 1.5, "shape.hidden is no int"),
        (("profile", "shape", "hidden"), True, "shape.hidden is no int"),
        (("profile", "shape", "layers"), {}, "layers is no list"),
        (("rates", "flops_per_s"), [[1]], "has 1 items instead of 2"),
        (("rates", "work"), [], "work is no mapping"),
        (("rates", "more"), 1, "other fields: more"),
    ],
)
def test_what_is_otherwise_is_refused(path: tuple[str, ...], value: object, said: str) -> None:
    tree = as_read(Known(PROFILE, RATES))
    *above, last = path
    node = tree
    for name in above:
        node = node[name]
    node[last] = value
    with pytest.raises(ValueError, match=said):
        known_from_json(tree)


def test_a_lacking_field_is_refused() -> None:
    tree = as_read(Known(PROFILE, RATES))
    del tree["rates"]["memory_bytes_per_s"]
    with pytest.raises(ValueError, match="memory_bytes_per_s"):
        known_from_json(tree)


@pytest.mark.parametrize("value", [None, [], "known", 3])
def test_what_is_no_mapping_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="version None"):
        known_from_json(value)
