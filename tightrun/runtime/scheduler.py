"""Chooses what each pass computes: who starts, who gives way, which tokens go together."""

from __future__ import annotations

from collections import deque

from tightrun.policies.admission import OutputLengths, may_start
from tightrun.policies.plan import Plan
from tightrun.runtime.batch import Segment
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.sequence import Sequence


class Scheduler:
    """Running and waiting sequences over one KV cache.

    A sequence that gives way (is preempted) keeps its tokens and loses its KV: it waits at the
    front and is computed again, so preemption changes when work happens, never what comes out.
    """

    def __init__(self, plan: Plan, cache: KVCache, prefix: SharedPrefix) -> None:
        self.plan = plan
        self.cache = cache
        self.prefix = prefix
        self.lengths = OutputLengths()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.prompt_tokens = 0
        self.shared_tokens = 0

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def next_block(self) -> list[list[Segment]]:
        """The segments of the next pass, one list per batch. Empty only when there is no work."""
        self._make_room_for_decoding()
        self._start()
        segments = self._choose()
        sides: dict[int, list[Segment]] = {}
        for segment in segments:
            sides.setdefault(segment.sequence.rope_side, []).append(segment)
        return [sides[side] for side in sorted(sides)]

    def advance(self, block: list[list[Segment]]) -> None:
        """The pass is over: its tokens are computed. Call before tokens are appended."""
        for segments in block:
            for segment in segments:
                sequence = segment.sequence
                sequence.computed += segment.tokens
                self.prefix.computed(sequence)
                if sequence.siblings and sequence.computed >= sequence.prompt_tokens:
                    self._release_siblings(sequence)

    def finish(self, sequence: Sequence) -> None:
        """The sequence is done, for better or worse: give back what it holds."""
        if sequence.siblings:
            self._release_siblings(sequence)
        self.running.remove(sequence)
        self.cache.close(sequence)
        self.lengths.learn(sequence.output_tokens, sequence.room)

    def abandon(self) -> None:
        """The run is over: what is unfinished gives back what it holds."""
        for sequence in self.running:
            self.cache.close(sequence)
        self.running.clear()
        self.waiting.clear()

    def expected_tokens(self) -> int:
        """Output tokens still expected from what runs and waits here."""
        return sum(
            max(0, self.lengths.expected(s.room) - s.output_tokens)
            for s in (*self.running, *self.waiting)
        )

    def _release_siblings(self, donor: Sequence) -> None:
        for sibling in reversed(donor.siblings):
            sibling.donor = donor
            self.waiting.appendleft(sibling)
        donor.siblings = []

    def _make_room_for_decoding(self) -> None:
        """Grow every decoding sequence by its next token; the latest starters give way."""
        for sequence in list(self.running):
            if sequence.place < 0:
                continue
            while not self.cache.can_grow(sequence, len(sequence.tokens)):
                self._preempt(self.running[-1])
                if sequence.place < 0:
                    break
            else:
                self.cache.grow(sequence, len(sequence.tokens))

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.cache.close(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _start(self) -> None:
        """Start waiting sequences in order while there are places and blocks for them."""
        promised = sum(self._promised(s) for s in self.running)
        while self.waiting and len(self.running) < self.plan.batch_size:
            if self.running and self.prefix.pending:
                return  # everyone else begins with what the first one computes now
            sequence = self.waiting[0]
            donor, shared = self._donor(sequence)
            held = shared // self.cache.block_tokens
            wanted = self.cache.blocks_for(min(self._expected(sequence), sequence.most_tokens))
            free = self.cache.pool.free
            if not may_start(free, promised, wanted - held, len(self.running)):
                return
            if not self.running and self.cache.blocks_for(len(sequence.tokens)) - held > free:
                # Only the shared prefix can hold blocks while nothing runs.
                self.prefix.drop()
                shared = 0
            self.waiting.popleft()
            self.cache.open(sequence)
            sequence.donor = None
            if shared:
                self.cache.adopt(sequence, donor, shared)
            if sequence.output_tokens == 0 and sequence.sample == 0:
                self.prompt_tokens += sequence.prompt_tokens
                self.shared_tokens += sequence.computed
            self.cache.grow(sequence, len(sequence.tokens))
            self.running.append(sequence)
            promised += self._promised(sequence)

    def _donor(self, sequence: Sequence) -> tuple[Sequence, int]:
        """Who has computed the most of how it begins, and how many tokens it may take over."""
        donor, most = sequence.donor, len(sequence.tokens) - 1
        if donor is not None and donor.place >= 0 and donor.rope_side == sequence.rope_side:
            return donor, min(sequence.prompt_tokens, donor.computed, most)
        return self.prefix.holder, min(self.prefix.common(sequence), most)

    def _expected(self, sequence: Sequence) -> int:
        written = sequence.output_tokens
        return sequence.prompt_tokens + max(written + 1, self.lengths.expected(sequence.room))

    def _promised(self, sequence: Sequence) -> int:
        """Blocks a running sequence is still expected to take."""
        wanted = min(self._expected(sequence), sequence.most_tokens)
        return max(0, self.cache.blocks_for(wanted) - len(sequence.blocks))

    def _choose(self) -> list[Segment]:
        """Every decoding sequence's token, then prefill chunks up to the budget."""
        decoding = [Segment(s, 1) for s in self.running if s.uncomputed == 1]
        left = max(1, self.plan.prefill_tokens - len(decoding))
        prefill = []
        for sequence in self.running:
            if sequence.uncomputed > 1 and left > 0:
                prefill.append(Segment(sequence, min(left, sequence.uncomputed)))
                left -= prefill[-1].tokens
        return decoding + prefill
