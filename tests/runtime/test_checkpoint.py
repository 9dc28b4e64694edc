"""What a checkpoint is loaded as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tightrun.runtime.checkpoint import ModelSource, checkpoint_bytes, load_config, load_model
from tightrun.runtime.model import ModelRefusedError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "llama", *RUN["llama"])


def loaded_as(folder: Path, stored: torch.dtype | None, asked: str) -> torch.dtype:
    config = load_config(ModelSource(str(folder)))
    config.dtype = stored
    model = load_model(ModelSource(str(folder), dtype=asked), config, CPU)
    return next(model.parameters()).dtype


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.bfloat16),  # on a CPU
        (None, torch.float32),
    ],
)
def test_auto_is_what_was_stored(
    stored: torch.dtype | None, expected: torch.dtype, folder: Path
) -> None:
    assert loaded_as(folder, stored, "auto") == expected


def test_another_dtype_may_be_asked_for(folder: Path) -> None:
    assert loaded_as(folder, torch.float32, "bfloat16") == torch.bfloat16


def test_a_loaded_model_neither_trains_nor_drops_out(folder: Path) -> None:
    source = ModelSource(str(folder))
    model = load_model(source, load_config(source), CPU)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_bytes_of_a_checkpoint_are_those_of_its_safetensors(folder: Path) -> None:
    size = (folder / "model.safetensors").stat().st_size
    assert checkpoint_bytes(ModelSource(str(folder))) == size


def test_a_checkpoint_on_the_hub_has_no_known_size() -> None:
    assert checkpoint_bytes(ModelSource("owner/name")) is None


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="cannot read the model's config"):
        load_config(ModelSource(str(tmp_path)))


def test_a_config_with_a_wrong_type_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": "large"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefusedError, match="cannot read the model's config"):
        load_config(ModelSource(str(tmp_path)))


@pytest.mark.parametrize("bytes_left", [0, 100, -100])
def test_a_checkpoint_cut_short_is_refused(bytes_left: int, tmp_path: Path, folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:bytes_left])
    config = load_config(ModelSource(str(folder)))
    with pytest.raises(ModelRefusedError, match="cannot load the model"):
        load_model(ModelSource(str(tmp_path)), config, CPU)
