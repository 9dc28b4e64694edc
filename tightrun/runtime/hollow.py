"""A model of which only the form is there: no weight is read, and memory taken for one layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PretrainedConfig

from tightrun.policies.shape import ModelShape
from tightrun.runtime.attention import AttentionKernel
from tightrun.runtime.checkpoint import ModelSource
from tightrun.runtime.cold import places
from tightrun.runtime.fusing import fused
from tightrun.runtime.imitation import fill_at_random, random_numbers
from tightrun.runtime.inspection_streamed import learn_streamed
from tightrun.runtime.kernel_choice import fusing_kernels
from tightrun.runtime.model import CutModel
from tightrun.runtime.page_memory import zeros_unwritten
from tightrun.runtime.prepack import prepack
from tightrun.runtime.skeleton import Skeleton, open_skeleton
from tightrun.runtime.slab_layout import LayerBindings
from tightrun.runtime.work_probe import ROWS


class RandomLayers:
    """Random numbers for the weights of a skeleton's layers, in memory for one of them: a small one
    in so many places that no cache holds them all."""

    def __init__(self, skeleton: Skeleton, device: torch.device) -> None:
        self._skeleton, self._device = skeleton, device
        self._filled: int | None = None
        self._places: list[torch.Tensor] = []
        self._bindings: list[LayerBindings] = []
        self._next = 0

    @contextmanager
    def loaded(self, layer: int) -> Iterator[None]:
        """The layer has random weights as long as this lasts."""
        layout = self._skeleton.layout(layer)
        if self._filled != layer:
            self.let_go()
            for _ in range(places(layout.nbytes, self._all_bytes(), self._device)):
                place = torch.empty(layout.nbytes, dtype=torch.uint8, device=self._device)
                fill_at_random(layout, place)
                self._places.append(place)
            self._bindings = [layout.bindings(place) for place in self._places]
            self._filled = layer
        self._bindings[0].bind()
        try:
            yield
        finally:
            bind_nothing(self._skeleton, layer)

    def _all_bytes(self) -> int:
        layers = range(len(self._skeleton.layers))
        return sum(self._skeleton.slab_bytes(layer) for layer in layers)

    def elsewhere(self, layer: int) -> int:
        """The layer that is loaded, its weights in the next of the places."""
        self._next = (self._next + 1) % len(self._bindings)
        self._bindings[self._next].bind()
        return layer

    def let_go(self) -> None:
        """Give the memory of the layer back."""
        self._filled = None
        self._places, self._bindings = [], []


class HollowModel:
    """The cut model of a skeleton with random numbers for weights, one layer at a time.

    Raises ModelRefusedError as far as it can be seen without weights. Close it.
    """

    def __init__(
        self,
        source: ModelSource,
        config: PretrainedConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.skeleton: Skeleton = open_skeleton(source, config, dtype, weights=False)
        self._device = device
        try:
            self.skeleton.imitate_outer(device)
            self.cut, self.shape = self._learn()
        except BaseException:
            self.close()
            raise
        self.layers = RandomLayers(self.skeleton, device)

    def fill_products(self) -> None:
        """Give the head, and whatever else multiplies outside the layers, memory of its own: a
        product cannot be timed with rows that share theirs."""
        for module in self.cut.model.modules():
            if isinstance(module, nn.Linear) and not module.weight.is_contiguous():
                weight = random_numbers(module.weight.shape, self.shape.hidden**-0.5, module.weight)
                module.weight = nn.Parameter(weight, requires_grad=False)

    def close(self) -> None:
        self.skeleton.close()

    def _learn(self) -> tuple[CutModel, ModelShape]:
        skeleton = self.skeleton
        layers = range(len(skeleton.layers))
        largest = max(skeleton.slab_bytes(layer) for layer in layers)
        empty = zeros_unwritten(largest, self._device)
        cut, shape, _, _ = learn_streamed(
            skeleton.model,
            self._device,
            lambda layer: skeleton.layout(layer).bindings(empty).bind(),
        )
        for layer in layers:
            bind_nothing(skeleton, layer)
        return cut, shape


def bind_nothing(skeleton: Skeleton, layer: int) -> None:
    """Let the layer have no weights, so that none of them stay in memory."""
    layout = skeleton.layout(layer)
    layout.bindings(torch.empty(layout.nbytes, dtype=torch.uint8, device="meta")).bind()


@contextmanager
def as_in_work(
    layers: RandomLayers,
    cut: CutModel,
    kernel: AttentionKernel,
    dtype: torch.dtype,
    packed: bool,
    layer: int,
) -> Iterator[None]:
    """The layer has random weights, and is fused as it will be in work, as long as this lasts.

    One that was `packed` stays so: its weights are nowhere else.
    """
    with layers.loaded(layer):
        module = cut.layers[layer]
        if packed:
            prepack(module, ROWS[-1])
        kernels = fusing_kernels(kernel, dtype)
        if kernels is None:
            yield
            return
        with fused(module, kernels):
            yield
