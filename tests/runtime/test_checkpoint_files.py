"""Which checkpoints are read, and why others are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tests.runtime.skeletons import STORED, Tensors, fill, opened, reference, rewritten
from tests.runtime.slab_moves import assert_same
from tightrun.runtime import checkpoint_files
from tightrun.runtime.checkpoint import ModelSource, load_config
from tightrun.runtime.checkpoint_files import INDEX
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.skeleton import open_skeleton

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "llama", *RUN["llama"])


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "mixtral", *RUN["mixtral"])


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "sharded"
    auto: Any = AutoModelForCausalLM
    auto.from_pretrained(llama).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.parametrize("tier", ["host", "disk"])
def test_a_checkpoint_in_shards_is_read(sharded: Path, tier: str, tmp_path: Path) -> None:
    with opened(sharded) as skeleton:
        fill(skeleton, tier, tmp_path)
        assert_same(skeleton.model, reference(sharded))


def test_a_hub_checkpoint_is_downloaded_by_name(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns))
        return str(sharded)

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    config = load_config(ModelSource(str(sharded)))
    source = ModelSource("owner/name", revision="v1")
    with open_skeleton(source, config, torch.float32) as skeleton:
        fill(skeleton, "disk", tmp_path)
        assert_same(skeleton.model, reference(sharded))
    shards = sorted(f.name for f in sharded.glob("*.safetensors"))
    assert asked == [("owner/name", "v1", [STORED, INDEX]), ("owner/name", "v1", shards)]


def test_a_hub_checkpoint_that_cannot_be_had_is_refused(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_args: str, **_options: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    config = load_config(ModelSource(str(llama)))
    with pytest.raises(ModelRefusedError, match=r"cannot download the model owner/name: no net"):
        open_skeleton(ModelSource("owner/name"), config, torch.float32)


def refusal(folder: Path, changed: Path | None = None) -> str:
    """Why `folder`'s config with the tensors of `changed` is refused when it is opened."""
    config = load_config(ModelSource(str(folder)))
    with pytest.raises(ModelRefusedError) as caught:
        open_skeleton(ModelSource(str(changed or folder)), config, torch.float32)
    return str(caught.value)


def without(folder: Path, target: Path, names: Sequence[str]) -> Path:
    return rewritten(
        folder, target, lambda tensors: {k: v for k, v in tensors.items() if k not in names}
    )


def test_a_folder_without_safetensors_is_refused(llama: Path, tmp_path: Path) -> None:
    assert "save_pretrained" in refusal(llama, tmp_path)


@pytest.mark.parametrize("bytes_left", [0, 7, 100, -1, -100])
def test_a_torn_file_is_refused(bytes_left: int, llama: Path, tmp_path: Path) -> None:
    whole = (llama / STORED).read_bytes()
    (tmp_path / STORED).write_bytes(whole[:bytes_left])
    assert "torn" in refusal(llama, tmp_path)


def test_a_file_that_is_something_else_is_refused(llama: Path, tmp_path: Path) -> None:
    (tmp_path / STORED).write_bytes((40).to_bytes(8, "little") + b"[1, 2]" + b" " * 34)
    assert "no safetensors file" in refusal(llama, tmp_path)


def test_a_shard_that_is_not_there_is_named(sharded: Path, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text((sharded / INDEX).read_text())
    said = refusal(sharded, tmp_path)
    assert "model-00001-of" in said
    assert "index" in said


def test_an_index_that_is_none_is_refused(llama: Path, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("{}")
    assert "no index of safetensors" in refusal(llama, tmp_path)


@pytest.mark.parametrize("name", [UP, "model.norm.weight", "lm_head.weight"])
def test_a_missing_tensor_is_named(name: str, llama: Path, tmp_path: Path) -> None:
    said = refusal(llama, without(llama, tmp_path / "changed", [name]))
    assert "lacks 1 of the tensors of LlamaForCausalLM" in said
    assert name in said


def test_a_missing_tied_pair_is_named(tmp_path: Path) -> None:
    gemma = save_tiny(tmp_path / "gemma", *RUN["gemma"])
    names = ["lm_head.weight", "model.embed_tokens.weight"]
    assert "lacks 2 of" in refusal(gemma, without(gemma, tmp_path / "changed", names))


def test_a_missing_expert_is_refused_when_its_layer_is_read(mixtral: Path, tmp_path: Path) -> None:
    expert = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
    with opened(without(mixtral, tmp_path / "changed", [expert])) as skeleton:
        place = torch.zeros(skeleton.slab_bytes(1), dtype=torch.uint8)
        with pytest.raises(ModelRefusedError, match=r"layers\.1\.mlp\.experts\.down_proj.*shape"):
            skeleton.slab(1, place)


def test_a_layer_whose_experts_are_all_missing_is_refused(mixtral: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {k: v for k, v in tensors.items() if "layers.1.block_sparse_moe.experts" not in k}

    said = refusal(mixtral, rewritten(mixtral, tmp_path / "changed", change))
    assert "lacks 2 of the tensors" in said


def test_a_wrong_shape_is_named(llama: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return tensors | {UP: torch.zeros(95, 64)}

    said = refusal(llama, rewritten(llama, tmp_path / "changed", change))
    assert f"{UP} has the shape [95, 64], but the model's config wants [96, 64]" in said


def test_a_quantised_checkpoint_is_refused(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    quantised = json.dumps(config | {"quantization_config": {"quant_method": "fp8"}})
    folder = rewritten(llama, tmp_path / "changed", lambda tensors: tensors, quantised)
    assert "quantised" in refusal(folder)


def test_tensors_the_model_has_no_use_for_are_left_alone(llama: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        return tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}

    folder = rewritten(llama, tmp_path / "changed", change)
    with opened(folder) as skeleton:
        fill(skeleton, "host", tmp_path)
        assert_same(skeleton.model, reference(folder))
