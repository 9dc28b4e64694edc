"""The sequences of a simulated job: who starts where, what a pass computes, who is done.

The rules are the scheduler's (runtime): first on the device, then off it, in the lane that has the
least; prefill in chunks beside decode rows; a batch is a lane. Preemption is left out: admission
reckons with the outputs that come.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from tightrun.policies.lengths import Lengths
from tightrun.policies.pass_cost import BatchCounts
from tightrun.policies.placement import Placement

# Passes are alike while contexts grow by less than an eighth, or for so few that it does not show.
ALIKE_GROWTH, SHORT_PASSES, ALIKE_PASSES = 8, 32, 4096


class _Lane:
    """The sequences of one batch: those that decode as sums, those in prefill one by one.

    A prompt in prefill is `[tokens, computed, offloaded, blocks, output]`; of those that decode,
    `(last pass, number, context at the end, offloaded, blocks)` are kept by their end.
    """

    def __init__(self) -> None:
        self.sequences = 0
        self.offloaded = 0
        self.blocks = 0
        self.decoding: list[tuple[int, int, int, bool, int]] = []
        self.context = 0
        self.context_off = 0
        self.rows_off = 0
        self.prefilling: deque[list[int]] = deque()


class SimulatedJob:
    """Runs the sequences of `lengths` through a placement; `supply` of them start (None: all)."""

    def __init__(self, placement: Placement, lengths: Lengths, supply: int) -> None:
        self.placement = placement
        self.lengths = lengths
        self.supply = supply
        self.started = 0
        self.finished = 0
        self.running = 0
        self.prefill_tokens = 0
        self.decode_rows = 0
        self.output_tokens = 0
        self._lanes = [_Lane() for _ in range(placement.batches)]
        self._free = placement.kv_blocks
        self._resident = 0
        self._now = 0

    @property
    def decodes_only(self) -> bool:
        """Whether no prompt is left to be computed in the coming pass."""
        return not any(lane.prefilling for lane in self._lanes)

    def start(self) -> None:
        """Start sequences in order while there are places and memory for them."""
        most = self.placement.sequences
        while self.started < self.supply and self.running < most:
            prompt = self.lengths.prompt_of(self.started)
            if not self._place(prompt, self.lengths.output_of(self.started)):
                return
            self.started += 1
            self.running += 1

    def alike(self) -> int:
        """Passes from the coming one on that differ only in how long contexts are; at least one."""
        most = ALIKE_PASSES
        for lane in self._lanes:
            decoding = len(lane.decoding)
            if decoding:
                grown = lane.context // (ALIKE_GROWTH * decoding)
                most = min(most, lane.decoding[0][0] - self._now, max(SHORT_PASSES, grown))
            if lane.prefilling:
                tokens, computed, *_ = lane.prefilling[0]
                most = min(most, (tokens - computed - 1) // self._width(decoding))
        return max(1, most)

    def counts(self, passes: int) -> list[BatchCounts]:
        """The batches of the coming `passes`, in their mean, and goes through these passes."""
        found = [self._batch(lane, passes) for lane in self._lanes if lane.sequences]
        self._now += passes
        for lane in self._lanes:
            self._end(lane)
        return found

    def _place(self, prompt: int, output: int) -> bool:
        """Give the sequence a place; False where there is none now."""
        p = self.placement
        allowed = output if self.lengths.outputs else None
        blocks = -(-self.lengths.reserved(prompt, allowed) // p.block_tokens)
        open_lanes = [lane for lane in self._lanes if lane.sequences < p.batch_size]
        never = blocks > p.kv_blocks and p.lane_blocks > 0
        if p.kv_blocks and not never and (not self._resident or blocks <= self._free):
            lane = min(open_lanes, key=lambda lane: lane.sequences)
            self._free -= blocks
            self._resident += 1
            lane.prefilling.append([prompt, 0, 0, blocks, output])
        elif p.lane_blocks:
            lane = min(open_lanes, key=lambda lane: (lane.blocks, lane.sequences))
            if lane.offloaded and lane.blocks + blocks > p.lane_blocks:
                return False
            lane.blocks += blocks
            lane.offloaded += 1
            lane.prefilling.append([prompt, 0, 1, blocks, output])
        else:
            return False
        lane.sequences += 1
        return True

    def _batch(self, lane: _Lane, passes: int) -> BatchCounts:
        """What a lane computes in a pass, in the mean of several that only decode."""
        decoding = len(lane.decoding)
        grown = (passes - 1) / 2
        context = lane.context + decoding * grown
        off = lane.context_off + lane.rows_off * grown
        off_sequences = lane.rows_off
        lane.context += passes * decoding
        lane.context_off += passes * lane.rows_off
        self.decode_rows += passes * decoding
        self.output_tokens += passes * decoding
        rows, logit_rows, written = decoding, decoding, lane.rows_off
        attended = context = context + decoding
        for tokens, computed, away in self._prefill(lane, decoding, passes):
            rows += tokens
            attended += tokens * computed + tokens * (tokens + 1) / 2
            context += computed + tokens
            if away:
                off += computed
                off_sequences += 1 if computed else 0
                written += tokens
        logit_rows += len(lane.decoding) - decoding
        return BatchCounts(rows, logit_rows, attended, context, off, off_sequences, written)

    def _width(self, decoding: int) -> int:
        """Tokens of prompts in a pass of a lane that decodes so many sequences."""
        return max(1, self.placement.prefill_tokens - decoding)

    def _prefill(self, lane: _Lane, decoding: int, passes: int) -> Iterator[tuple[int, float, int]]:
        """The chunks `(tokens, computed before, offloaded)` of a pass; those that end decode. Of
        several passes, the chunk of the mean one."""
        left = self._width(decoding)
        if passes > 1 and lane.prefilling:
            prompt = lane.prefilling[0]
            yield left, prompt[1] + left * (passes - 1) / 2, prompt[2]
            prompt[1] += passes * left
            self.prefill_tokens += passes * left
            return
        while lane.prefilling and left > 0:
            prompt = lane.prefilling[0]
            tokens, computed, away, blocks, output = prompt
            chunk = min(left, tokens - computed)
            left -= chunk
            self.prefill_tokens += chunk
            yield chunk, computed, away
            if computed + chunk < tokens:
                prompt[1] = computed + chunk
                return
            lane.prefilling.popleft()
            self._decode(lane, tokens, output, bool(away), blocks)

    def _decode(self, lane: _Lane, prompt: int, output: int, away: bool, blocks: int) -> None:
        """The prompt is computed and its first token written; it decodes from the next pass on."""
        self.output_tokens += 1
        end = (self._now + output, self.started, prompt + output - 1, away, blocks)
        heapq.heappush(lane.decoding, end)
        lane.context += prompt
        if away:
            lane.context_off += prompt
            lane.rows_off += 1

    def _end(self, lane: _Lane) -> None:
        """Let go of the sequences that have written all they will."""
        while lane.decoding and lane.decoding[0][0] <= self._now:
            _, _, context, away, blocks = heapq.heappop(lane.decoding)
            lane.context -= context
            lane.sequences -= 1
            if away:
                lane.context_off -= context
                lane.rows_off -= 1
                lane.offloaded -= 1
                lane.blocks -= blocks
            else:
                self._free += blocks
                self._resident -= 1
            self.running -= 1
            self.finished += 1
