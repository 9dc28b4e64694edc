"""A model built without memory for its weights: parameters on the meta device, buffers real."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.initialization import no_init_weights, no_tie_weights

from tightrun.runtime.checkpoint import ModelSource
from tightrun.runtime.checkpoint_keys import keep_wide_tensors
from tightrun.runtime.model import ModelRefusedError


def build_on_meta(source: ModelSource, config: PretrainedConfig, dtype: torch.dtype) -> nn.Module:
    """The model of a config, in evaluation mode, with tied parameters not tied yet.

    Buffers are what the constructor makes them: rope tables are in no checkpoint. Raises
    ModelRefusedError.
    """
    auto: Any = AutoModelForCausalLM
    try:
        with _parameters_on_meta(), no_init_weights(), no_tie_weights():
            model = auto.from_config(
                copy.deepcopy(config), dtype=dtype, trust_remote_code=source.trust_remote_code
            )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise ModelRefusedError(f"cannot build the model at {source.path}: {reason}") from error
    keep_wide_tensors(model, dtype)
    model.eval()
    return cast(nn.Module, model)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Let modules keep no data of the parameters that are given to them.

    `torch.device("meta")` would leave buffers without their values too.
    """
    original = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.to("meta"), requires_grad=False)
        original(self, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]
