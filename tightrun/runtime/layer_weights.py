"""A layer's parameters from the checkpoint into its place in host memory."""

from __future__ import annotations

import torch

from tightrun.runtime.checkpoint_files import CheckpointFiles, StoredTensor
from tightrun.runtime.checkpoint_keys import Conversion
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.slab_layout import SlabLayout


def fill_layer(
    layout: SlabLayout, place: torch.Tensor, files: CheckpointFiles, conversion: Conversion
) -> None:
    """Read the layer into `place`, host memory uint8 `[>= layout.nbytes]`, tensor by tensor.

    What needs no conversion is read to where it belongs; a converted parameter is in memory twice
    for a moment, with its parts. Raises ModelRefusedError.
    """
    plain = conversion.keys.plain
    rest: dict[str, int] = {}
    for index, parameter in enumerate(layout.parameters):
        if parameter.name in plain:
            _read(layout, index, place, files, plain[parameter.name])
        else:
            rest[parameter.name] = index
    groups = _groups_of(layout, conversion) if rest else []
    for group in groups:
        for index in _convert(layout, group, place, conversion):
            rest.pop(layout.parameters[index].name, None)
    if rest:
        raise ModelRefusedError(
            f"the checkpoint lacks {len(rest)} of the tensors of layer {layout.layer}: "
            f"{next(iter(rest))}{', ...' if len(rest) > 1 else ''}"
        )


def _read(
    layout: SlabLayout,
    index: int,
    place: torch.Tensor,
    files: CheckpointFiles,
    stored: StoredTensor,
) -> None:
    if stored.dtype == layout.parameters[index].dtype:
        files.read_into(stored, layout.region(index, place))
    else:
        layout.view(index, place).copy_(files.read(stored))


def _groups_of(layout: SlabLayout, conversion: Conversion) -> list[list[StoredTensor]]:
    """The groups of stored tensors that become parameters of this layer."""
    names = {p.name for p in layout.parameters}
    return [group for name, group in conversion.keys.converted.items() if name in names]


def _convert(
    layout: SlabLayout, group: list[StoredTensor], place: torch.Tensor, conversion: Conversion
) -> list[int]:
    """Convert a group, copy what it sets in the layer's modules, and put those back as they were.

    Returns which parameters came out.
    """
    before = [p.module._parameters[p.attribute] for p in layout.parameters]
    try:
        conversion.run(group, torch.device("cpu"))
        now = [p.module._parameters[p.attribute] for p in layout.parameters]
        came = [i for i, value in enumerate(now) if value is not before[i]]
        for index in came:
            value = now[index]
            assert value is not None
            layout.view(index, place).copy_(value.data)
        return came
    finally:
        for parameter, value in zip(layout.parameters, before, strict=True):
            parameter.module._parameters[parameter.attribute] = value
