"""What surrounds the layers: embeddings, norms, head, and every buffer. It is loaded to stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tightrun.runtime.checkpoint_files import CheckpointFiles
from tightrun.runtime.checkpoint_keys import Conversion
from tightrun.runtime.imitation import overlapping_rows
from tightrun.runtime.model import ModelRefusedError


class OuterWeights:
    """The parameters whose names are not `inside` a layer, and all buffers.

    `nbytes` is what they take, tied ones once. Two that are tied by the config but both stored
    count twice: whether they are equal is seen when they are read.
    """

    def __init__(
        self, model: nn.Module, files: CheckpointFiles, conversion: Conversion, inside: set[str]
    ) -> None:
        self._model: Any = model
        self._files = files
        self._conversion = conversion
        self._inside = inside
        tied = conversion.tied()
        self._refuse_tied_layers(tied)
        weights = [p for n, p in model.named_parameters() if n not in inside | tied]
        self.nbytes = sum(t.numel() * t.element_size() for t in (*weights, *model.buffers()))

    def load(self, device: torch.device) -> None:
        """Read them one by one and tie what is tied. Raises ModelRefusedError."""
        keys = self._conversion.keys
        for name in keys.plain.keys() - self._inside:
            wanted = self._conversion.names[name].dtype
            value = self._files.read(keys.plain[name]).to(device=device, dtype=wanted)
            self._set(name, value)
        for name, group in keys.converted.items():
            if name not in self._inside:
                self._conversion.run(group, device)
        self._move_buffers(device)
        missing = {n for n, p in self._named() if p.is_meta}
        self._model.tie_weights(missing_keys=set(missing), recompute_mapping=False)
        if lacking := sorted(n for n, p in self._named() if p.is_meta):
            raise ModelRefusedError(
                f"the checkpoint lacks {len(lacking)} tensors outside the layers: {lacking[0]}"
            )

    def imitate(self, device: torch.device) -> None:
        """Put random numbers in their place that take next to no memory; tie what is tied."""
        tied = self._conversion.tied()
        for name, parameter in self._named():
            if parameter.is_meta and name not in tied:
                self._set(name, overlapping_rows(parameter, device))
        self._move_buffers(device)
        self._model.tie_weights(missing_keys=set(tied), recompute_mapping=False)

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        named = self._model.named_parameters(remove_duplicate=False)
        return [(n, p) for n, p in named if n not in self._inside]

    def _set(self, name: str, value: torch.Tensor) -> None:
        path, _, attribute = name.rpartition(".")
        module = self._model.get_submodule(path)
        if attribute in module._buffers:
            module._buffers[attribute] = value
        else:
            module._parameters[attribute] = nn.Parameter(value, requires_grad=False)

    def _move_buffers(self, device: torch.device) -> None:
        for module in self._model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.device != device:
                    module._buffers[name] = buffer.to(device)

    def _refuse_tied_layers(self, tied: set[str]) -> None:
        if shared := sorted(tied & self._inside):
            raise ModelRefusedError(
                f"{type(self._model).__name__} uses weights of one layer in another "
                f"({shared[0]}); such layers cannot be streamed"
            )
