"""A model is learnt without its weights as it is with them, and from a config alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tests.runtime.projected import CPU
from tests.runtime.skeletons import opened
from tightrun.policies.forms import Recipe, recipe_of
from tightrun.policies.profile import ModelProfile
from tightrun.runtime import cold
from tightrun.runtime.checkpoint import ModelSource, load_config, load_model
from tightrun.runtime.hollow import HollowModel
from tightrun.runtime.inspection import inspect_model
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.model_profile import profile_of, recipe_of_model
from tightrun.runtime.projection_trial import find_projection

Saved = Callable[[str], Path]
SOME = ["llama", "mixtral", "gpt_neox", "deepseek_v3", "gpt_oss", "gemma2", "gpt2"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = save_tiny(tmp_path_factory.mktemp(family), *RUN[family])
        return folders[family]

    return save


def learnt(folder: Path) -> ModelProfile:
    source = ModelSource(str(folder))
    model = HollowModel(source, load_config(source), torch.float32, CPU)
    try:
        recipe = recipe_of_model(model.cut, model.shape, torch.float32, CPU, model.layers.loaded)
        return profile_of(model.skeleton, model.shape, recipe, torch.float32, 0)
    finally:
        model.close()


def with_weights(folder: Path) -> ModelProfile:
    """The same from the whole model in memory, of which every layer is tried."""
    source = ModelSource(str(folder))
    inspected = inspect_model(load_model(source, load_config(source), CPU), CPU)
    shape = inspected.shape
    projection, _ = find_projection(inspected.cut, CPU)
    recipe: Recipe = recipe_of(shape, projects=False)
    if projection is not None:
        layers = range(len(shape.layers))
        recipe = replace(
            recipe,
            activation_bytes=projection.width * 4 * len(layers),
            projection_flops=float(sum(map(projection.flops_per_token, layers))),
        )
    with opened(folder) as skeleton:
        return profile_of(skeleton, shape, recipe, torch.float32, 0)


@pytest.mark.parametrize("family", SOME)
def test_what_is_learnt_is_what_the_weights_show(family: str, saved: Saved) -> None:
    assert learnt(saved(family)) == with_weights(saved(family))


@pytest.mark.parametrize("family", SOME)
def test_a_config_alone_will_do(family: str, saved: Saved, tmp_path: Path) -> None:
    text = (saved(family) / "config.json").read_text()
    (tmp_path / "config.json").write_text(text)
    whole, alone = learnt(saved(family)), learnt(tmp_path)
    # Where a checkpoint is converted, its layers lie elsewhere on the disk.
    assert replace(alone, disk_layers=whole.disk_layers) == whole


def test_a_checkpoint_that_is_not_read_is_no_config_alone(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved("llama") / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelRefusedError, match="holds neither"):
        learnt(tmp_path)


def test_a_quantised_model_is_refused(saved: Saved, tmp_path: Path) -> None:
    config = json.loads((saved("llama") / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefusedError, match="is quantised"):
        learnt(tmp_path)


def test_a_small_layer_has_its_weights_elsewhere_at_every_turn(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "USUAL_BYTES", 2**17)
    source = ModelSource(str(saved("llama")))
    model = HollowModel(source, load_config(source), torch.float32, CPU)
    try:
        with model.layers.loaded(1):
            weights = []
            for _ in range(2):
                assert model.layers.elsewhere(1) == 1
                weights.append(next(model.cut.layers[1].parameters()))
        assert len({w.data_ptr() for w in weights}) == len(weights)
        assert all(torch.equal(w, weights[0]) for w in weights)
    finally:
        model.close()
