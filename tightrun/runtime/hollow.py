"""A model of which only the form is there: no weight is read, and memory taken for one layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PretrainedConfig

from tightrun.policies.shape import ModelShape
from tightrun.runtime.checkpoint import ModelSource
from tightrun.runtime.imitation import fill_at_random
from tightrun.runtime.inspection_streamed import learn_streamed
from tightrun.runtime.model import CutModel
from tightrun.runtime.skeleton import Skeleton, open_skeleton


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
        self._filled: int | None = None
        self._place = torch.empty(0, dtype=torch.uint8, device=device)

    @contextmanager
    def loaded(self, layer: int) -> Iterator[None]:
        """The layer has random weights as long as this lasts."""
        skeleton = self.skeleton
        if self._filled != layer:
            self._place = torch.empty(0, dtype=torch.uint8, device=self._device)
            size = skeleton.slab_bytes(layer)
            self._place = torch.empty(size, dtype=torch.uint8, device=self._device)
            fill_at_random(skeleton.layout(layer), self._place)
            self._filled = layer
        skeleton.layout(layer).bindings(self._place).bind()
        yield
        self._bind_nothing(layer)

    def let_go(self) -> None:
        """Give the memory of the layer back."""
        self._filled = None
        self._place = torch.empty(0, dtype=torch.uint8, device=self._device)

    def close(self) -> None:
        self.skeleton.close()

    def _learn(self) -> tuple[CutModel, ModelShape]:
        skeleton = self.skeleton
        layers = range(len(skeleton.layers))
        largest = max(skeleton.slab_bytes(layer) for layer in layers)
        empty = torch.zeros(largest, dtype=torch.uint8, device=self._device)
        cut, shape, _, _ = learn_streamed(
            skeleton.model,
            self._device,
            lambda layer: skeleton.layout(layer).bindings(empty).bind(),
        )
        for layer in layers:
            self._bind_nothing(layer)
        return cut, shape

    def _bind_nothing(self, layer: int) -> None:
        layout = self.skeleton.layout(layer)
        nothing = torch.empty(layout.nbytes, dtype=torch.uint8, device="meta")
        layout.bindings(nothing).bind()
