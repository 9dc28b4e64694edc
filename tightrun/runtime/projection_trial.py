"""Finds out at load how keys and values follow from hidden states, and proves it on a tiny batch.

Like the inspection, nothing is decided by names: a layer is projected again as it will be in work
and must give the keys and values of its normal call, else the model has no activations form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tightrun.runtime.attention import AttentionSpec
from tightrun.runtime.batch import Batch
from tightrun.runtime.model import CutModel, LayerCall
from tightrun.runtime.projection import (
    AttentionCall,
    LayerProjection,
    Projection,
    QueryOnly,
    batch_of_tokens,
    project_again,
)

# (first position, tokens) of each sequence: what is projected again, and what runs meanwhile.
OLDER = ((0, 5), (3, 9), (7, 13))
RUNNING = ((20, 1), (31, 1), (24, 4))
# A prime number: no reshape fits it by chance that would not fit any number of tokens.
CHOSEN = 23
# Relative to the largest element; in 16 bits products of another shape round otherwise.
TOLERANCE = {torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}
EXACT = 1e-5

Pair = tuple[torch.Tensor, torch.Tensor]
Project = Callable[[Sequence[QueryOnly]], Pair]


class _NotProjectableError(ValueError):
    """Says why hidden states do not give the keys and values again."""


def find_projection(
    cut: CutModel,
    device: torch.device,
    loaded: Callable[[int], AbstractContextManager[object]] | None = None,
    layers: Sequence[int] | None = None,
) -> tuple[Projection | None, str]:
    """The model's projection, or None and the reason in a sentence.

    `loaded(layer)` is entered while that layer runs, in rising order and once: what a streamed
    layer's weights need to be there. `layers` are those that are tried, of which alone the
    projection then is; None: all.
    """
    before = cut.answer_attention(_attend_to_itself)
    try:
        with torch.inference_mode():
            trial = _Trial(cut, device)
            found = []
            for index in range(len(cut.layers)) if layers is None else layers:
                with loaded(index) if loaded else nullcontext():
                    found.append(trial.layer(index))
            return Projection(found, *trial.form()), ""
    except (TypeError, RuntimeError, AttributeError, ValueError, LookupError) as error:
        return None, (
            f"keys and values of {type(cut.model).__name__} cannot be projected again from "
            f"stored activations: {error}"
        )
    finally:
        cut.answer_attention(before)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What a layer's attention was given, and the key and value it came to."""

    call: AttentionCall
    head_dim: int
    key: torch.Tensor
    value: torch.Tensor


class _Trial:
    """Two batches on their way through the layers; tokens of the first are projected again."""

    def __init__(self, cut: CutModel, device: torch.device) -> None:
        config = cut.model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
        longest = int(getattr(config, "max_position_embeddings", None) or 2**20)

        def batch(sequences: Sequence[tuple[int, int]]) -> Batch:
            positions = torch.cat([torch.arange(at, at + n, device=device) for at, n in sequences])
            ids = (torch.arange(len(positions), device=device) * 7919 + 31) % config.vocab_size
            return batch_of_tokens(ids, positions % longest)

        self._cut = cut
        self._older, self._running = batch(OLDER), batch(RUNNING)
        # Another order than they were computed in: every token must stand for itself.
        self._chosen = (torch.arange(CHOSEN, device=device) * 5 + 2) % self._older.tokens
        self._again = batch_of_tokens(
            self._older.input_ids[0, self._chosen], self._older.positions[0, self._chosen]
        )
        for made in (self._older, self._running, self._again):
            cut.prelude(made)
        self._forms: list[tuple[int, torch.dtype]] = []
        self._known: dict[object, list[tuple[str, QueryOnly]]] = {}

    def form(self) -> tuple[int, torch.dtype]:
        """Width and dtype of the hidden states, the same in all layers."""
        if len(set(self._forms)) != 1:
            raise _NotProjectableError("its layers' attentions receive states of several widths")
        return self._forms[0]

    def layer(self, index: int) -> LayerProjection:
        """Take both batches through a layer and prove its projection."""
        older = _record(self._cut, index, self._older)
        call = _record(self._cut, index, self._running).call
        states = older.call.states[0, self._chosen]
        expected = older.key[:, self._chosen], older.value[:, self._chosen]
        self._forms.append((states.shape[1], states.dtype))

        def project(skipped: Sequence[QueryOnly]) -> Pair:
            return project_again(call, skipped, states, self._again)

        try:
            ran, base = _what_runs(call.module, lambda: project(()))
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            raise _NotProjectableError(
                f"the attention of layer {index} does not run for other tokens: {error}"
            ) from error
        if not _agree(base, expected):
            raise _NotProjectableError(f"layer {index} gives others than in its normal call")
        skipped = self._query_only(call.module, ran, project, expected, older.head_dim)
        left = {id(x.module) for x in skipped}
        own = [call.module, *(x.module for x in ran if id(x.module) not in left)]
        weights = [p for m in own for p in m.parameters(recurse=False) if p.dim() == 2]
        return LayerProjection(call.module, skipped, 2 * sum(p.numel() for p in weights))

    def _query_only(
        self,
        module: nn.Module,
        ran: list[QueryOnly],
        project: Project,
        expected: Pair,
        head_dim: int,
    ) -> tuple[QueryOnly, ...]:
        """As it was found for a layer of the same structure if that holds, else by trial."""
        inside = dict(module.named_modules())
        names = {id(m): name for name, m in inside.items()}
        structure = structure_of(module)
        if structure in self._known:
            known = [replace(x, module=inside[name]) for name, x in self._known[structure]]
            if _same(project, known, expected):
                return tuple(known)
        # Of one head where the module takes that: its rotation is not computed in full either.
        for widths in ((head_dim, None), (None,)):
            found = _find_query_only(ran, project, widths)
            if _same(project, found, expected):
                self._known[structure] = [(names[id(x.module)], x) for x in found]
                return tuple(found)
        return ()


def structure_of(module: nn.Module) -> tuple[object, ...]:
    """What two modules have in common that compute alike: names, types and sizes of their parts."""
    return tuple(
        (name, type(m), *(tuple(p.shape) for p in m.parameters(recurse=False)))
        for name, m in module.named_modules()
    )


def _find_query_only(
    ran: list[QueryOnly], project: Project, widths: Sequence[int | None]
) -> list[QueryOnly]:
    """Those modules whose result can be zeros, of the first of `widths` that fits; None: its own.

    Each in turn: key and value stay the same to the last bit if they do not depend on it.
    """
    base = project(())
    found = []
    for module in ran:
        for width in widths:
            skip = replace(module, width=width or module.width)
            if _same(project, [skip], base, exactly=True):
                found.append(skip)
                break
    return found


def _same(
    project: Project, skipped: Sequence[QueryOnly], expected: Pair, exactly: bool = False
) -> bool:
    try:
        got = project(skipped)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # zeros of this form cannot stand there
    if exactly:
        return all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    return _agree(got, expected)


def _agree(got: Pair, expected: Pair) -> bool:
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        a, b = a.float(), b.float()
        if not (a - b).abs().max() <= TOLERANCE.get(got[0].dtype, EXACT) * b.abs().max():
            return False
    return True


def _what_runs(module: nn.Module, run: Callable[[], Pair]) -> tuple[list[QueryOnly], Pair]:
    """Which innermost modules take rows and give rows before the attention, with their widths."""
    ran: list[QueryOnly] = []

    def note(inner: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if (
            len(args) == 1
            and isinstance(args[0], torch.Tensor)
            and isinstance(out, torch.Tensor)
            and args[0].shape[:-1] == out.shape[:-1]
        ):
            ran.append(QueryOnly(inner, out.shape[-1], out.dtype))

    innermost = [x for x in module.modules() if not list(x.children()) and x is not module]
    handles = [x.register_forward_hook(note) for x in innermost]
    try:
        return ran, run()
    finally:
        for handle in handles:
            handle.remove()


def _record(cut: CutModel, index: int, batch: Batch) -> _Recorded:
    """Run the layer over the batch and note the call of the module that attends."""
    given: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    found: list[_Recorded] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given[module] = (args, kwargs)

    def answer(
        call: LayerCall,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        if module not in given:
            raise _NotProjectableError(f"the attention of layer {index} is no module's call")
        made = AttentionCall(call, module, *given[module])
        if not made.args and "hidden_states" not in made.kwargs:
            raise _NotProjectableError(f"the attention of layer {index} takes no hidden states")
        found.append(_Recorded(made, query.shape[-1], key, value))
        return _attend_to_itself(call, module, query, key, value, spec)

    before = cut.answer_attention(answer)
    modules = list(cut.layers[index].modules())
    handles = [x.register_forward_pre_hook(note, with_kwargs=True) for x in modules]
    try:
        cut.run_layer(index, batch)
    finally:
        for handle in handles:
            handle.remove()
        cut.answer_attention(before)
    [recorded] = found
    if recorded.call.states.shape[:2] != (1, batch.tokens):
        raise _NotProjectableError(f"the attention of layer {index} is given no row per token")
    return recorded


def _attend_to_itself(
    _call: LayerCall,
    _module: nn.Module,
    query: torch.Tensor,
    _key: torch.Tensor,
    value: torch.Tensor,
    _spec: AttentionSpec,
) -> torch.Tensor:
    """The answer of a text of one token: needs no cache, and lets the values matter."""
    return value.repeat_interleave(query.shape[0] // value.shape[0], 0).transpose(0, 1)
