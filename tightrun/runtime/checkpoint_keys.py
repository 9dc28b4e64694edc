"""Which stored tensor becomes which parameter, by transformers' own renaming and conversion.

The one file that touches weight conversion, an interface of transformers that is internal: tried
with 5.17 and 5.23.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    build_glob_alternation,
    convert_and_load_state_dict_in_model,
    dot_natural_key,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging

from tightrun.runtime.checkpoint_files import CheckpointFiles, StoredTensor
from tightrun.runtime.model import ModelRefusedError


@dataclass(slots=True)
class KeyMap:
    """`plain`: parameters that are a stored tensor, by their name. `converted`: those that are
    made of several or of parts, by the name of the first that comes out. `outcomes`: every name
    that comes out of a conversion, as far as names tell."""

    plain: dict[str, StoredTensor] = field(default_factory=dict)
    converted: dict[str, list[StoredTensor]] = field(default_factory=dict)
    outcomes: set[str] = field(default_factory=set)


class _LazyTensor:
    """Reads a stored tensor when it is indexed, as safetensors' slices do."""

    def __init__(self, files: CheckpointFiles, stored: StoredTensor) -> None:
        self._files = files
        self._stored = stored

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._files.read(self._stored)[index]


class Conversion:
    """A model's rules for its checkpoint's keys. The model's parameters are on meta."""

    def __init__(self, model: Any, files: CheckpointFiles, dtype: torch.dtype) -> None:
        self._model = model
        self._files = files
        self._dtype = dtype
        self._rules: list[Any] = get_model_conversion_mapping(self._model)
        self.names = cast(dict[str, torch.Tensor], model.state_dict())
        self.keys = self._map()

    def run(self, sources: Iterable[StoredTensor], device: torch.device) -> None:
        """Convert one group of stored tensors and set what comes out in the model.

        Raises ModelRefusedError.
        """
        with _no_progress_bars():
            found, _ = convert_and_load_state_dict_in_model(
                self._model,
                {stored.key: _LazyTensor(self._files, stored) for stored in sources},
                LoadStateDictConfig(
                    dtype=self._dtype, device_map={"": device}, weight_mapping=self._rules
                ),
            )
        if found.mismatched_keys:
            name, got, wanted = sorted(found.mismatched_keys, key=str)[0]
            raise wrong_shape(name, got, wanted)
        if found.conversion_errors:
            name, reason = next(iter(found.conversion_errors.items()))
            last = str(reason).strip().split("\n")[-1]
            raise ModelRefusedError(f"cannot convert the checkpoint's {name}: {last}")

    def refuse_wrong_shapes(self) -> None:
        """Raises ModelRefusedError for a stored tensor that is not as its parameter."""
        for name, stored in self.keys.plain.items():
            if stored.shape != tuple(self.names[name].shape):
                raise wrong_shape(name, stored.shape, self.names[name].shape)

    def missing(self) -> set[str]:
        """Names that no stored tensor becomes, tied ones too."""
        return set(self.names) - set(self.keys.plain) - self.keys.outcomes

    def tied(self) -> set[str]:
        """The missing names that another, which is there, is tied to."""
        missing = self.missing()
        groups: dict[str, set[str]] = {}
        for target, source in self._model.all_tied_weights_keys.items():
            groups.setdefault(source, {source}).add(target)
        there = [group for group in groups.values() if group - missing]
        return {name for group in there for name in group & missing}

    def refuse_what_is_missing(self, path: str) -> None:
        """Raises ModelRefusedError for a checkpoint that lacks parameters, as far as names tell."""
        if not self.keys.outcomes <= set(self.names):
            return  # a conversion names what comes out in a way of its own: seen when it is run
        if lacking := sorted(self.missing() - self.tied()):
            named = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            raise ModelRefusedError(
                f"the checkpoint at {path} lacks {len(lacking):,} of the tensors of "
                f"{type(self._model).__name__}: {named}"
            )

    def _map(self) -> KeyMap:
        renamings = [x for x in self._rules if isinstance(x, WeightRenaming)]
        converters = [x for x in self._rules if isinstance(x, WeightConverter)]
        prefix = self._model.base_model_prefix
        keys = KeyMap()
        # Some renamings depend on keys seen before, in this order.
        for key in sorted(self._files.tensors, key=dot_natural_key):
            stored = self._files.tensors[key]
            name, pattern = rename_source_key(key, renamings, converters, prefix, self.names)
            if name not in self.names and key in self.names:
                name, pattern = rename_source_key(key, [], [], prefix, self.names)
            if name not in self.names:
                continue
            if pattern is None:
                keys.plain.setdefault(name, stored)
                continue
            if name not in keys.converted:
                rule = next(x for x in converters if pattern in x.source_patterns)
                first, *others = rule.target_patterns
                keys.outcomes |= {name} | {name.replace(first, other) for other in others}
            keys.converted.setdefault(name, []).append(stored)
        return keys


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without this there is a bar for every converted parameter."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def keep_wide_tensors(model: nn.Module, dtype: torch.dtype) -> None:
    """Give what a model keeps in float32 that dtype, as `from_pretrained` does.

    Parameters are on meta yet; persistent buffers may be among them.
    """
    plan: dict[str, torch.dtype] = cast(Any, model)._get_dtype_plan(dtype)
    if not plan:
        return
    pattern, globs, _ = build_glob_alternation(list(plan))
    stored = model.state_dict(keep_vars=True)
    for name, tensor in stored.items():
        if found := pattern.search(name):
            assert found.lastgroup is not None
            tensor.data = tensor.data.to(plan[globs[found.lastgroup]])


def wrong_shape(name: str, got: Iterable[int], wanted: Iterable[int]) -> ModelRefusedError:
    return ModelRefusedError(
        f"the checkpoint's {name} has the shape {list(got)}, but the model's config wants "
        f"{list(wanted)}"
    )
