"""Where a layer's bytes come from, slice by slice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny
from tests.runtime.skeletons import CPU, STORED, fill, opened, reference
from tests.runtime.slab_moves import assert_same, bring, slot_of
from tightrun.runtime.checkpoint_files import INDEX
from tightrun.runtime.device import FileRange
from tightrun.runtime.skeleton import Skeleton
from tightrun.runtime.slab_layout import DISK_GRAIN
from tightrun.runtime.slabs import DiskSlab, HostSlab

WIDE = RUN["llama"][1] | {"hidden_size": 128, "intermediate_size": 256}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "llama", "llama", WIDE)


@pytest.fixture(scope="module")
def skeleton(llama: Path) -> Skeleton:
    return opened(llama)


def host_slab(skeleton: Skeleton, layer: int) -> HostSlab | DiskSlab:
    return skeleton.slab(layer, torch.zeros(skeleton.slab_bytes(layer), dtype=torch.uint8))


def disk_slab(skeleton: Skeleton, layer: int) -> HostSlab | DiskSlab:
    assert skeleton.reads_directly(layer)
    return skeleton.slab(layer, Path("nothing is spilled here"))


@pytest.mark.parametrize("make", [host_slab, disk_slab])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shares=st.lists(st.floats(0, 1), max_size=8))
def test_slices_cut_anywhere_bring_what_the_whole_does(
    make: Callable[[Skeleton, int], HostSlab | DiskSlab], shares: list[float], skeleton: Skeleton
) -> None:
    slab = make(skeleton, 1)
    cuts = sorted(int(x * slab.nbytes) // slab.grain * slab.grain for x in shares)
    whole, sliced = slot_of(slab.nbytes), slot_of(slab.nbytes)
    bring(slab, whole)
    bring(slab, sliced, cuts)
    assert sliced.equal(whole)


def test_disk_reads_begin_and_end_at_pages_but_for_the_files_end(
    skeleton: Skeleton, llama: Path
) -> None:
    file_bytes = (llama / STORED).stat().st_size
    for layer in range(3):
        slab = disk_slab(skeleton, layer)
        slot = slot_of(slab.nbytes)
        for begin in range(0, slab.nbytes, 3 * DISK_GRAIN):
            for move in slab.moves(begin, min(begin + 3 * DISK_GRAIN, slab.nbytes), slot):
                assert isinstance(move.source, FileRange)
                end = move.source.offset + move.source.nbytes
                assert move.source.offset % DISK_GRAIN == 0
                assert end % DISK_GRAIN == 0 or end == file_bytes
                assert move.target.data_ptr() % DISK_GRAIN == 0


def test_a_direct_slab_is_little_more_than_the_layer(skeleton: Skeleton) -> None:
    weights = sum(p.numel() * p.element_size() for p in skeleton.layers[1].parameters())
    assert disk_slab(skeleton, 1).nbytes <= weights + 2 * DISK_GRAIN


def test_slabs_are_whole_pages(skeleton: Skeleton) -> None:
    for make in (host_slab, disk_slab):
        assert all(make(skeleton, layer).nbytes % DISK_GRAIN == 0 for layer in range(3))


def test_an_empty_slice_moves_nothing(skeleton: Skeleton) -> None:
    for make in (host_slab, disk_slab):
        slab = make(skeleton, 0)
        assert slab.moves(DISK_GRAIN, DISK_GRAIN, slot_of(slab.nbytes)) == []


def test_a_layer_in_two_files_is_read_from_both(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    tensors = load_file(llama / STORED)
    # Every second tensor in the other file: each file has holes where the layer's others lie.
    halves = [dict(list(tensors.items())[i::2]) for i in (0, 1)]
    names = ["first.safetensors", "second.safetensors"]
    for name, half in zip(names, halves, strict=True):
        save_file(half, tmp_path / name, metadata={"format": "pt"})
    found = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": found}))
    with opened(tmp_path) as skeleton:
        fill(skeleton, "disk", tmp_path)
        assert_same(skeleton.model, reference(llama))


def test_a_layer_between_two_elements_is_spilled(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    save_unaligned(load_file(llama / STORED), tmp_path / STORED)
    with opened(tmp_path) as skeleton:
        assert not any(skeleton.reads_directly(layer) for layer in range(3))
        fill(skeleton, "disk", tmp_path / "spilled")
        assert_same(skeleton.model, reference(llama))


def test_a_tensor_keeps_its_offset_within_the_page(skeleton: Skeleton) -> None:
    skeleton.load_outer(CPU)
    layout = skeleton.layout(1, "disk")
    stored = skeleton._conversion.keys.plain
    for parameter, offset in zip(layout.parameters, layout.offsets, strict=True):
        assert (offset - stored[parameter.name].offset) % DISK_GRAIN == 0


def test_a_place_may_be_larger_than_the_slab(skeleton: Skeleton) -> None:
    place = torch.zeros(skeleton.slab_bytes(0) + 12_345, dtype=torch.uint8)
    slab = skeleton.slab(0, place)
    slot = slot_of(slab.nbytes)
    bring(slab, slot)
    assert slot.equal(place[: slab.nbytes])


def save_unaligned(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """A file whose data begins at an odd offset, which safetensors' own writer avoids."""
    header, data = {}, b""
    for key, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert path.stat().st_size % 2 == 1
