"""A model filled layer by layer from slabs is bitwise the model of `from_pretrained`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tests.runtime.skeletons import CPU, Tensors, fill, fill_layers, opened, reference, rewritten
from tests.runtime.slab_moves import assert_same, slot_of
from tightrun.runtime.attention import TorchAttention
from tightrun.runtime.inspection import paged_attention
from tightrun.runtime.model import CutModel

Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = save_tiny(tmp_path_factory.mktemp(family), *RUN[family])
        return folders[family]

    return save


@pytest.mark.parametrize("tier", ["host", "disk"])
@pytest.mark.parametrize("family", sorted(RUN))
def test_slabs_are_the_weights_of_from_pretrained(
    family: str, tier: str, saved: Saved, tmp_path: Path
) -> None:
    with opened(saved(family)) as skeleton:
        fill(skeleton, tier, tmp_path)
        assert_same(skeleton.model, reference(saved(family)))


@pytest.mark.parametrize("tier", ["host", "disk"])
@pytest.mark.parametrize("family", ["llama", "gpt_oss", "deepseek_v3", "gpt2"])
def test_another_dtype_is_converted_to(
    family: str, tier: str, saved: Saved, tmp_path: Path
) -> None:
    with opened(saved(family), torch.bfloat16) as skeleton:
        fill(skeleton, tier, tmp_path)
        assert_same(skeleton.model, reference(saved(family), torch.bfloat16))


def test_parameters_a_model_keeps_wide_stay_so(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keep_in_fp32_modules_strict", {"o_proj", "norm"})
    with opened(saved("llama"), torch.bfloat16) as skeleton:
        fill(skeleton, "host", tmp_path)
        assert_same(skeleton.model, reference(saved("llama"), torch.bfloat16))
        assert skeleton.model.model.norm.weight.dtype == torch.float32  # type: ignore[union-attr]


def test_layers_are_filled_after_the_model_was_cut(saved: Saved, tmp_path: Path) -> None:
    with opened(saved("mixtral")) as skeleton:
        skeleton.load_outer(CPU)
        cut = CutModel(skeleton.model, paged_attention(TorchAttention()))
        fill_layers(skeleton, "host", tmp_path)
        expected = reference(saved("mixtral"))
        for layer, wanted in zip(cut.layers, expected.model.layers, strict=True):  # type: ignore
            assert_same(layer, wanted)


def test_layers_are_bound_to_a_slot_before_anything_is_read(saved: Saved) -> None:
    with opened(saved("deepseek_v3")) as skeleton:
        for layer, module in enumerate(skeleton.layers):
            layout = skeleton.layout(layer)
            layout.bindings(slot_of(layout.nbytes).zero_()).bind()
            assert all(not p.is_meta and not p.any() for p in module.parameters())


def test_binding_another_slot_moves_the_layer_there(saved: Saved) -> None:
    with opened(saved("llama")) as skeleton:
        layout = skeleton.layout(0)
        first, second = (slot_of(layout.nbytes).fill_(x) for x in (0, 1))
        bindings = [layout.bindings(slot) for slot in (first, second)]
        for each, slot in ((0, first), (1, second), (0, first)):
            bindings[each].bind()
            begin, end = slot.data_ptr(), slot.data_ptr() + layout.nbytes
            assert all(begin <= p.data_ptr() < end for p in skeleton.layers[0].parameters())


def test_a_skeleton_takes_no_memory_for_weights(saved: Saved) -> None:
    with opened(saved("deepseek_v3")) as skeleton:
        assert all(p.is_meta for p in skeleton.model.parameters())
        assert not any(b.is_meta for b in skeleton.model.buffers())


def test_outer_bytes_are_all_that_is_not_in_a_layer(saved: Saved) -> None:
    for family in ("llama", "gemma", "deepseek_v3"):  # gemma's head is tied
        with opened(saved(family)) as skeleton:
            skeleton.load_outer(CPU)
            model = skeleton.model
            held = [t for t in (*model.parameters(), *model.buffers()) if not t.is_meta]
            assert skeleton.outer_bytes == sum(t.numel() * t.element_size() for t in held)


def _tied_llama(saved: Saved, tmp_path: Path, head: torch.Tensor | None) -> Path:
    """A llama whose config ties its head, with a stored one all the same."""
    config = json.loads((saved("llama") / "config.json").read_text())

    def change(tensors: Tensors) -> Tensors:
        stored = tensors["model.embed_tokens.weight"].clone() if head is None else head
        return tensors | {"lm_head.weight": stored}

    tied = json.dumps(config | {"tie_word_embeddings": True})
    return rewritten(saved("llama"), tmp_path / "tied", change, tied)


def test_a_tied_head_that_is_stored_too_is_one_tensor(saved: Saved, tmp_path: Path) -> None:
    folder = _tied_llama(saved, tmp_path, None)
    with opened(folder) as skeleton:
        fill(skeleton, "disk", tmp_path)
        assert_same(skeleton.model, reference(folder))
        model = skeleton.model
        assert model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]


def test_a_head_stored_with_other_values_is_not_tied(saved: Saved, tmp_path: Path) -> None:
    folder = _tied_llama(saved, tmp_path, torch.ones(200, 64))
    with opened(folder) as skeleton:
        fill(skeleton, "disk", tmp_path)
        assert_same(skeleton.model, reference(folder))


def test_a_tied_head_that_alone_is_stored_is_the_embedding(saved: Saved, tmp_path: Path) -> None:
    folder = _tied_llama(saved, tmp_path, torch.ones(200, 64))

    def change(tensors: Tensors) -> Tensors:
        return {k: v for k, v in tensors.items() if "embed" not in k}

    folder = rewritten(folder, tmp_path / "head", change)
    with opened(folder) as skeleton:
        fill(skeleton, "host", tmp_path)
        assert_same(skeleton.model, reference(folder))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_keys_without_the_base_models_prefix_are_found(
    family: str, saved: Saved, tmp_path: Path
) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {
            k.removeprefix("model.").removeprefix("transformer."): v for k, v in tensors.items()
        }

    folder = rewritten(saved(family), tmp_path / "base", change)
    with opened(folder) as skeleton:
        assert skeleton.reads_directly(0)
        fill(skeleton, "disk", tmp_path)
        assert_same(skeleton.model, reference(folder))
