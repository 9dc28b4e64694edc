"""What a pass does to a batch at a stage: its context comes, it computes, its context goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from tightrun.policies.plan import logits_bytes, workspace_bytes
from tightrun.policies.shape import ModelShape
from tightrun.runtime.attention import AttentionKernel, AttentionSpec
from tightrun.runtime.batch import Batch
from tightrun.runtime.batch_context import Projected
from tightrun.runtime.context_links import ContextLinks
from tightrun.runtime.device import Device, Happening
from tightrun.runtime.memory_failures import (
    PassAbandonedError,
    PassOutOfMemoryError,
    failure_of,
    is_memory_failure,
)
from tightrun.runtime.model import CutModel, LayerCall
from tightrun.runtime.projection import Projection, batch_of_tokens

Sample = Callable[[Batch, torch.Tensor], None]


# So many parts of a long pass may be enqueued before the first of them is over.
PARTS_AHEAD = 2


def never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Older:
    """Tokens whose keys and values are projected again: their prelude, the slots these go to, and
    where their states are in the workspace."""

    tokens: Batch
    places: Batch
    source: torch.Tensor


class Stages:
    """The layers and the head of a cut model, over batches whose contexts lie where they may.

    `links` and `projection` are None where no context is off the device, or none is held as
    activations; of these at most `most_rows` tokens are projected at once (0: all).
    """

    def __init__(
        self,
        model: CutModel,
        shape: ModelShape,
        device: Device,
        kernel: AttentionKernel,
        links: ContextLinks | None = None,
        projection: Projection | None = None,
        most_rows: int = 0,
    ) -> None:
        self.count = len(model.layers) + 1
        self._model, self._shape = model, shape
        self._device, self._kernel = device, kernel
        self._links, self._projection = links, projection
        self._sample: Sample | None = None
        self._given_up: Callable[[], bool] = never
        # Contexts that are sent for before the batch they are needed for: all but one buffer's.
        self.ahead = links.buffers - 1 if links else 1
        self._most_rows = self._planned_rows = most_rows
        self._in_step = False
        self._ahead: deque[Happening] = deque()
        self._older: dict[int, list[_Older]] = {}
        model.answer_attention(self._attend)
        if projection is not None:
            projection.watch(self._on_states)

    def begin_pass(
        self, sample: Sample, given_up: Callable[[], bool] = never, *, in_step: bool = False
    ) -> None:
        """`sample` gets each batch's logits `[rows, vocab]`, one batch's at a time.

        `given_up` is asked before each batch of each stage, and within it, whether to go on. A
        device that computes beside the host is waited for on the way if they are to be `in_step`.
        """
        self._sample, self._given_up = sample, given_up
        self._in_step = in_step
        self._ahead = deque()
        self._older = {}

    def hold(self, rows: int) -> None:
        """Project no more older tokens at once than a batch may have rows."""
        self._most_rows = min(rows, self._planned_rows or rows)

    def abandon(self, block: Sequence[Batch]) -> set[int]:
        """The pass over the block is given up: wait until nothing is under way, and forget it.

        Returns the lanes in whose host memory something is missing.
        """
        torn = set() if self._links is None else self._links.abandon()
        self._device.settle(self._device.mark())
        self._older = {}
        self._model.forget()
        for batch in block:
            batch.hidden, batch.layer_calls = None, []
        return torn

    def following(self, block: Sequence[Batch]) -> Iterator[tuple[int, Batch | None]]:
        """The (stage, batch) of a pass in their order, then no more batches."""
        for stage in range(self.count):
            for batch in block:
                yield stage, batch
        while True:
            yield self.count, None

    def fetch(self, stage: int, batch: Batch | None) -> None:
        """Send for the context the stage needs of the batch."""
        if self._links is not None and batch is not None and stage < self.count - 1:
            self._links.fetch(stage, batch)

    def run(self, stage: int, batch: Batch) -> None:
        """Compute the stage; the first one embeds the tokens before.

        Raises PassAbandonedError if the pass is given up, PassOutOfMemoryError if it has to be.
        """
        self._go_on()
        self._keep_step()
        try:
            if stage == 0:
                self._device.compute(f"embed batch {batch.index}", partial(self._embed, batch))
            if stage < self.count - 1:
                self._run_layer(stage, batch)
            else:
                self._run_head(batch)
        except Exception as error:
            if not is_memory_failure(error):
                raise
            where = "the head" if stage == self.count - 1 else f"layer {stage}"
            raise PassOutOfMemoryError(failure_of(batch, where, error)) from None

    def store(self, stage: int, batch: Batch) -> None:
        """Send out what the stage added to the batch's context."""
        if self._links is not None and stage < self.count - 1:
            self._links.store(stage, batch)

    def settle(self, *others: Happening) -> None:
        """Wait until nothing is under way: computing, fetches, stores, and `others`."""
        under_way = [] if self._links is None else self._links.outstanding()
        self._device.settle(self._device.mark(), *under_way, *others)

    def _keep_step(self) -> None:
        """Let the host wait for the device, so that giving up is not to wait for a whole pass."""
        if not self._in_step:
            return
        self._ahead.append(self._device.mark())
        if len(self._ahead) > PARTS_AHEAD:
            self._device.settle(self._ahead.popleft())
            self._go_on()

    def _go_on(self) -> None:
        if self._given_up():
            raise PassAbandonedError

    def _run_layer(self, layer: int, batch: Batch) -> None:
        if self._links is not None:
            self._links.arrive(layer, batch)
            if batch.index in self._older:
                assert batch.context is not None
                for older in self._older[batch.index]:
                    older.places.point(layer, batch.context.buffer)
        self._device.compute(
            f"layer {layer} batch {batch.index}",
            partial(self._model.run_layer, layer, batch),
            workspace_bytes(self._shape, batch.tokens),
        )

    def _run_head(self, batch: Batch) -> None:
        self._device.compute(
            f"head batch {batch.index}",
            partial(self._head, batch),
            logits_bytes(self._shape, len(batch.logit_sequences)),
        )

    def _embed(self, batch: Batch) -> None:
        self._model.prelude(batch)
        context = batch.context
        if context is None or not context.projected_tokens:
            return
        tokens = context.projected
        count = len(tokens.ids)
        step = self._most_rows or count
        self._older[batch.index] = [
            self._prelude_of_older(batch, tokens, slice(at, at + step))
            for at in range(0, count, step)
        ]

    def _prelude_of_older(self, batch: Batch, tokens: Projected, some: slice) -> _Older:
        device = batch.input_ids.device
        ids, positions = tokens.ids[some], tokens.positions[some]
        places = batch_of_tokens(torch.from_numpy(ids), torch.from_numpy(positions))
        places.slots = torch.from_numpy(tokens.target[some])
        places.cache, places.context = batch.cache, batch.context
        if batch.padding:
            ids = np.append(ids, ids[-1])
            positions = np.append(positions, int(batch.positions[0, -1]))
        sent = [torch.from_numpy(x).to(device, non_blocking=True) for x in (ids, positions)]
        older = batch_of_tokens(sent[0], sent[1], padding=batch.padding)
        self._model.prelude(older)
        older.hidden = None
        places.input_ids, places.positions = older.input_ids, older.positions
        source = torch.from_numpy(tokens.source[some]).to(device, non_blocking=True)
        return _Older(older, places, source)

    def _head(self, batch: Batch) -> None:
        hidden, batch.hidden, batch.layer_calls = batch.hidden, None, []
        self._older.pop(batch.index, None)
        assert hidden is not None
        assert self._sample is not None
        if batch.logit_sequences:
            self._sample(batch, self._model.head(hidden[0, batch.logit_rows]))

    def _attend(
        self,
        call: LayerCall,
        _module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
    ) -> torch.Tensor:
        # A wide batch may take many seconds for a layer: its attention is about half way.
        self._go_on()
        assert call.cache is not None
        assert call.batch is not None
        self._kernel.store(call.cache, key, value, call.batch)
        if call.batch.context is not None and self._links is not None:
            self._links.gather_rows(call.layer, call.batch, key, value)
        return self._kernel.attend(call.cache, query, call.batch, spec)

    def _on_states(self, call: LayerCall, states: torch.Tensor) -> None:
        """Before a layer's attention: what is held as activations becomes keys and values in the
        workspace, and the batch's own activations that are to be held go out."""
        batch, links = call.batch, self._links
        if batch is None or batch.context is None or links is None:
            return
        for older in self._older.get(batch.index, ()):
            assert self._projection is not None
            assert call.cache is not None
            held = links.fetched_states(batch, older.source, self._projection.width)
            key, value = self._projection.project(call, held, older.tokens)
            self._kernel.store(call.cache, key, value, older.places)
        links.store_states(call.layer, batch, states)
