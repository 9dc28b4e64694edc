"""Where each parameter of a layer lies in its slab, and the views of them on a slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

DISK_GRAIN = 4096
HOST_GRAIN = 256


@dataclass(frozen=True, slots=True)
class LayerParameter:
    """A parameter of a layer's module, by its name in the whole model."""

    module: nn.Module
    attribute: str
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class SlabLayout:
    """`offsets[i]` is where `parameters[i]` begins; the slab has `nbytes`, a multiple of 4096."""

    layer: int
    nbytes: int
    parameters: tuple[LayerParameter, ...]
    offsets: tuple[int, ...]

    def bindings(self, slot: torch.Tensor) -> LayerBindings:
        """The parameters as views on `slot`, uint8 `[>= nbytes]`, whatever lies in it.

        Take them when the layer's modules are final: they are set in the modules of now.
        """
        assert slot.dtype == torch.uint8
        assert slot.numel() >= self.nbytes
        return LayerBindings(
            [
                (p.module, p.attribute, nn.Parameter(self.view(i, slot), requires_grad=False))
                for i, p in enumerate(self.parameters)
            ]
        )

    def region(self, index: int, slot: torch.Tensor) -> torch.Tensor:
        """The bytes of a parameter, uint8."""
        begin = self.offsets[index]
        return slot[begin : begin + self.parameters[index].nbytes]

    def view(self, index: int, slot: torch.Tensor) -> torch.Tensor:
        parameter = self.parameters[index]
        return self.region(index, slot).view(parameter.dtype).view(parameter.shape)


class LayerBindings:
    """The parameters of one layer as views on one slot."""

    def __init__(self, views: list[tuple[nn.Module, str, nn.Parameter]]) -> None:
        self._views = [(module._parameters, attribute, view) for module, attribute, view in views]

    def bind(self) -> None:
        """Make the layer's modules use the views. Copies nothing."""
        for parameters, attribute, view in self._views:
            parameters[attribute] = view


def layer_parameters(layer: nn.Module, prefix: str) -> tuple[LayerParameter, ...]:
    """The parameters of a layer whose name in the whole model is `prefix`, each module's once."""
    return tuple(_each_parameter(layer, prefix))


def _each_parameter(layer: nn.Module, prefix: str) -> Iterator[LayerParameter]:
    for path, module in layer.named_modules(prefix=prefix):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{path}.{attribute}"
                shape = tuple(parameter.shape)
                yield LayerParameter(module, attribute, name, parameter.dtype, shape)


def host_layout(layer: int, parameters: tuple[LayerParameter, ...]) -> SlabLayout:
    """The parameters in order, each from a multiple of 256 bytes on."""
    offsets = []
    at = 0
    for parameter in parameters:
        offsets.append(at)
        at += round_up(parameter.nbytes, HOST_GRAIN)
    return SlabLayout(layer, round_up(at, DISK_GRAIN), parameters, tuple(offsets))


def round_up(nbytes: int, grain: int) -> int:
    return -(-nbytes // grain) * grain
