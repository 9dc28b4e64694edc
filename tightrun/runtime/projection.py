"""Keys and values again from stored hidden states, for any model that is cut.

The attention module of a layer is called once more with hidden states that it received in an
earlier pass, and with the arguments that a prelude made for their tokens. Our attention function
takes key and value out of that call and leaves it. What feeds the query alone is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tightrun.runtime.attention import AttentionSpec
from tightrun.runtime.batch import Batch
from tightrun.runtime.model import LayerCall

OnStates = Callable[[LayerCall, torch.Tensor], None]


class _TakenError(Exception):
    """Leaves an attention module once its key and value are known."""


@dataclass(frozen=True, slots=True)
class QueryOnly:
    """A module that only the query depends on; zeros `[..., width]` can stand for its result."""

    module: nn.Module
    width: int
    dtype: torch.dtype

    def stand_in(self, x: torch.Tensor) -> torch.Tensor:
        # One element seen many times: no memory is written for a result nobody reads.
        return x.new_zeros((), dtype=self.dtype).expand(*x.shape[:-1], self.width)


@dataclass(frozen=True, slots=True)
class LayerProjection:
    """How one layer is projected. No weight is kept here: they may be elsewhere at the next call.

    `module` is the one that attends; `flops_per_token` of the matrices behind key and value.
    """

    module: nn.Module
    skipped: tuple[QueryOnly, ...]
    flops_per_token: int


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """A call of an attention module that is under way, with the arguments it was given."""

    layer_call: LayerCall
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def states(self) -> torch.Tensor:
        """The hidden states it received, `[1, tokens, width]`."""
        states: torch.Tensor = self.args[0] if self.args else self.kwargs["hidden_states"]
        return states


class Projection:
    """Hands out what the attention modules receive, and makes keys and values of it again.

    `width` elements of `dtype` are kept for a token in each layer.
    """

    def __init__(self, layers: Sequence[LayerProjection], width: int, dtype: torch.dtype) -> None:
        self.width = width
        self.dtype = dtype
        self._layers = list(layers)
        self._watching: list[RemovableHandle] = []
        self._current: AttentionCall | None = None

    def flops_per_token(self, layer: int) -> int:
        """FLOPs of projecting one token in this layer: 2 for each weight that takes part."""
        return self._layers[layer].flops_per_token

    def watch(self, on_states: OnStates | None) -> None:
        """Call `on_states(call, states)` before every layer's attention; None: leave it alone.

        `states` `[tokens, width]` are those of the batch that runs, rows of padding included.
        They are the model's own and must be copied to be kept.
        """
        for handle in self._watching:
            handle.remove()
        self._watching = []
        if on_states is not None:
            hook = partial(self._notice, on_states)
            self._watching = [
                x.module.register_forward_pre_hook(hook, with_kwargs=True) for x in self._layers
            ]

    def project(
        self, call: LayerCall, states: torch.Tensor, older: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Key and value `[kv_heads, tokens, dim]` of stored `states` `[tokens, width]`.

        Only inside of `on_states`, with the `call` it was given. `older` is a batch of the states'
        tokens, in the same order, whose prelude has run. Its padding has no states.
        """
        current = self._current
        assert current is not None, "states are projected while their layer's attention is called"
        assert current.layer_call is call
        return project_again(current, self._layers[call.layer].skipped, states, older)

    def _notice(
        self, on_states: OnStates, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        call: Any = module.tightrun_call
        self._current = AttentionCall(call, module, args, kwargs)
        try:
            on_states(call, self._current.states[0])
        finally:
            self._current = None


def batch_of_tokens(input_ids: torch.Tensor, positions: torch.Tensor, padding: int = 0) -> Batch:
    """A batch of loose tokens, both arguments `[tokens]`, for a prelude and nothing else."""
    none = torch.zeros(0, dtype=torch.int32)
    return Batch(
        segments=[],
        input_ids=input_ids[None],
        positions=positions[None],
        slots=none,
        query_start=none,
        query_len=none,
        context_len=none,
        block_table=none,
        logit_rows=none,
        logit_sequences=[],
        padding=padding,
    )


def project_again(
    current: AttentionCall, skipped: Sequence[QueryOnly], states: torch.Tensor, older: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Key and value `[kv_heads, tokens, dim]` of the attention module for other states."""
    call, tokens = current.layer_call, states.shape[0]
    assert call.batch is not None
    assert tokens == older.tokens - older.padding
    if older.padding:
        states = torch.cat([states, states.new_zeros(older.padding, states.shape[1])])
    args, kwargs = _exchange(
        (current.args, current.kwargs),
        dict(_pairs(call.batch.layer_calls[call.layer], older.layer_calls[call.layer])),
    )
    if args:
        args = (states[None], *args[1:])
    else:
        kwargs["hidden_states"] = states[None]

    taken: list[torch.Tensor] = []

    def take(
        _call: LayerCall,
        _module: nn.Module,
        _query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        _spec: AttentionSpec,
    ) -> NoReturn:
        taken.extend((key, value))
        raise _TakenError

    handler, call.handler = call.handler, take
    try:
        with _standing_in(skipped):
            # Not by calling the module: that would be noticed as a call of its own.
            current.module.forward(*args, **kwargs)
    except _TakenError:
        pass
    finally:
        call.handler = handler
    key, value = taken
    return key[:, :tokens], value[:, :tokens]


@contextmanager
def _standing_in(skipped: Sequence[QueryOnly]) -> Iterator[None]:
    """Let zeros stand for what these modules compute."""
    own = [x.module.__dict__.get("forward") for x in skipped]
    for skip in skipped:
        skip.module.__dict__["forward"] = skip.stand_in
    try:
        yield
    finally:
        for skip, forward in zip(skipped, own, strict=True):
            if forward is None:
                del skip.module.__dict__["forward"]
            else:
                skip.module.__dict__["forward"] = forward


def _pairs(now: Any, then: Any) -> Iterator[tuple[int, torch.Tensor]]:
    """(identity of a tensor in `now`, what stands at its place in `then`)."""
    if isinstance(now, torch.Tensor) and isinstance(then, torch.Tensor):
        yield id(now), then
    elif isinstance(now, (tuple, list)) and isinstance(then, (tuple, list)):
        for a, b in zip(now, then, strict=True):
            yield from _pairs(a, b)
    elif isinstance(now, dict) and isinstance(then, dict):
        for key, value in now.items():
            yield from _pairs(value, then[key])


def _exchange(value: Any, by_identity: dict[int, torch.Tensor]) -> Any:
    """The same arguments with other tensors in the place of those that are known."""
    if isinstance(value, torch.Tensor):
        return by_identity.get(id(value), value)
    if isinstance(value, (tuple, list)):
        return type(value)(_exchange(x, by_identity) for x in value)
    if isinstance(value, dict):
        return {key: _exchange(x, by_identity) for key, x in value.items()}
    return value
