"""Cuts a Hugging Face decoder at its layer list; the one file that knows a model's inside.

The model's own `forward` runs with its layers replaced by taps. A first call stops at the last tap:
it has embedded the tokens and handed every layer its arguments. Then the real layers run one by
one, in whatever order the loop wants. A second call puts final hidden states in at the last tap:
the model's own norm, head and logit scaling come out. No family-specific code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tightrun.runtime.attention import AttentionSpec, tell_attention_modules
from tightrun.runtime.batch import Batch
from tightrun.runtime.kv_layout import LayerCache

AttentionHandler = Callable[
    ["LayerCall", nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, AttentionSpec], torch.Tensor
]


class ModelRefusedError(ValueError):
    """The model cannot be run exactly; the message says why in a sentence."""


class _LastTapReachedError(Exception):
    """Leaves the model's forward once every layer's arguments are known."""


@dataclass(slots=True)
class LayerCall:
    """Which layer runs for which batch; every module inside the layer can find it.

    `handler` answers the attention call. One object per layer, filled before the layer runs: some
    models drop unknown keyword arguments on the way to their attention, so the batch cannot
    travel as one.
    """

    layer: int
    handler: AttentionHandler
    batch: Batch | None = None
    cache: LayerCache | None = None

    def attention(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        return self.handler(self, module, query[0], key[0], value[0], spec)


class _Switch:
    """What the taps do at the moment: record their arguments, or let final states through."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.first_hidden: torch.Tensor | None = None
        self.final_hidden: torch.Tensor | None = None


class _Tap(nn.Module):
    """Stands where a decoder layer stood. Attributes the model reads are the real layer's."""

    def __init__(self, layer: nn.Module, last: bool, switch: _Switch) -> None:
        super().__init__()
        # Kept out of the module tree: the model must not see the layer's weights twice.
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_switch", switch)
        self._last = last
        self.returns_tuple = False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_layer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        switch: _Switch = object.__getattribute__(self, "_switch")
        hidden = args[0] if args else kwargs["hidden_states"]
        if switch.final_hidden is not None:
            hidden = switch.final_hidden if self._last else hidden
            return (hidden,) if self.returns_tuple else hidden
        if switch.first_hidden is None:
            switch.first_hidden = hidden
        switch.calls.append((args, kwargs))
        if self._last:
            raise _LastTapReachedError
        return (hidden,) if self.returns_tuple else hidden


def find_layers(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The model's layer list, with the module that holds it and its name there."""
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    count = getattr(config, "num_hidden_layers", None)
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name, child
    raise ModelRefusedError(
        f"{type(model).__name__} has no list of {count} decoder layers to cut it at"
    )


class CutModel:
    """A Hugging Face decoder in pieces: what comes before the layers, the layers, the head."""

    def __init__(self, model: nn.Module, attention: AttentionHandler) -> None:
        self.model = model
        self._parent, self._name, layers = find_layers(model)
        self.layers: list[nn.Module] = list(layers)
        self._switch = _Switch()
        count = len(self.layers)
        self._taps = [_Tap(x, i == count - 1, self._switch) for i, x in enumerate(self.layers)]
        self._calls = [LayerCall(i, attention) for i in range(count)]
        for layer, call in zip(self.layers, self._calls, strict=True):
            tell_attention_modules(layer, call)
        setattr(self._parent, self._name, nn.ModuleList(self._taps))

    @contextmanager
    def whole(self) -> Iterator[nn.ModuleList]:
        """The model with its own layers in their place, as long as this lasts."""
        taps = getattr(self._parent, self._name)
        layers = nn.ModuleList(self.layers)
        setattr(self._parent, self._name, layers)
        try:
            yield layers
        finally:
            setattr(self._parent, self._name, taps)

    def answer_attention(self, handler: AttentionHandler) -> AttentionHandler:
        """Let `handler` answer the attention calls of every layer; returns who did until now."""
        before = self._calls[0].handler
        for call in self._calls:
            call.handler = handler
        return before

    def forget(self) -> None:
        """Let go of what a pass that was given up has left here."""
        self._switch.calls, self._switch.first_hidden = [], None
        for call in self._calls:
            call.batch = None

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter once: those around the layers, then the layers'."""
        yield from self.model.parameters()
        for layer in self.layers:
            yield from layer.parameters()

    def learn_return_types(self, tuples: list[bool]) -> None:
        """Tell the taps which layers return a tuple, so that the model finds what it expects."""
        for tap, is_tuple in zip(self._taps, tuples, strict=True):
            tap.returns_tuple = is_tuple

    def prelude(self, batch: Batch) -> None:
        """Embed the batch and note every layer's arguments: fills `hidden` and `layer_calls`."""
        switch = self._switch
        switch.calls, switch.first_hidden, switch.final_hidden = [], None, None
        try:
            self.model(input_ids=batch.input_ids, position_ids=batch.positions, use_cache=False)
        except _LastTapReachedError:
            pass
        else:
            raise ModelRefusedError(f"{type(self.model).__name__} does not run its layer list")
        assert len(switch.calls) == len(self.layers)
        batch.hidden, batch.layer_calls = switch.first_hidden, switch.calls
        switch.calls, switch.first_hidden = [], None

    def run_layer(self, layer: int, batch: Batch) -> None:
        """One real layer over the batch: `hidden` `[1, tokens, hidden]` in and out."""
        args, kwargs = batch.layer_calls[layer]
        call = self._calls[layer]
        call.batch = batch
        call.cache = batch.cache.layers[layer] if batch.cache else None
        if args:
            out = self.layers[layer](batch.hidden, *args[1:], **kwargs)
        else:
            out = self.layers[layer](**(kwargs | {"hidden_states": batch.hidden}))
        batch.hidden = out[0] if isinstance(out, tuple) else out

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's own norm, head and scaling: `[rows, hidden]` to logits `[rows, vocab]`."""
        rows = hidden.shape[0]
        self._switch.final_hidden = hidden[None]
        try:
            ids = torch.zeros(1, rows, dtype=torch.long, device=hidden.device)
            out = self.model(input_ids=ids, position_ids=ids, use_cache=False)
        finally:
            self._switch.final_hidden = None
        logits: torch.Tensor = out.logits[0]
        return logits
