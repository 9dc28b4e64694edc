"""Passes of a scheduler without a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.runtime.stand_ins import request
from tests.runtime.test_kv_cache import SIZE, cache_of
from tightrun.policies.plan import Plan
from tightrun.runtime.batch import Segment
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence


def waiting(row: int, prompt: list[int], room: int, *, side: int = 0, n: int = 1) -> Sequence:
    """A sequence as the feed makes it."""
    asked = request(row, n=n)
    first, *others = (Sequence(asked, i, list(prompt), len(prompt), room, side) for i in range(n))
    first.siblings = others
    return first


@dataclass
class Simulation:
    """Passes without a model: every sequence writes as many tokens as it has room for."""

    batch_size: int = 4
    blocks: int = 12
    prefill_tokens: int = 16
    passes: list[list[list[tuple[int, int]]]] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    computed_tokens: int = 0

    def __post_init__(self) -> None:
        plan = Plan(self.batch_size, 1, self.prefill_tokens, SIZE, self.blocks, 40)
        self.cache = cache_of(self.blocks, self.batch_size + 1)
        self.prefix = SharedPrefix(self.cache)
        self.scheduler = Scheduler(plan, self.cache, self.prefix)

    def run(self, sequences: list[Sequence], most_passes: int = 2000) -> None:
        """Until all are finished; each pass is held against what must always be true."""
        self.prefix.find(sequences)
        for one in sequences:
            self.scheduler.add(one)
        while not self.scheduler.idle:
            assert len(self.passes) < most_passes, "somebody never gets on"
            self.step()

    def step(self) -> None:
        block = self.scheduler.next_block()
        self.check(block)
        self.passes.append(
            [[(s.sequence.request.row_index, s.tokens) for s in batch] for batch in block]
        )
        at_end = [s.sequence for batch in block for s in batch if s.reaches_end]
        self.scheduler.advance(block)
        for one in at_end:
            one.tokens.append(7)
            if one.output_tokens == one.room:
                self.scheduler.finish(one)
                self.finished.append(one)

    def check(self, block: list[list[Segment]]) -> None:
        segments = [segment for batch in block for segment in batch]
        assert segments, "a pass without work"
        assert len({segment.sequence for segment in segments}) == len(segments)
        assert len(self.scheduler.running) <= self.batch_size
        decoding = sum(segment.tokens == 1 for segment in segments)
        total = sum(segment.tokens for segment in segments)
        self.computed_tokens += total
        assert total <= max(self.prefill_tokens, decoding + 1)
        for segment in segments:
            one = segment.sequence
            assert 1 <= segment.tokens <= one.uncomputed
            assert one.place >= 0
            assert len(one.blocks) * SIZE >= one.computed + segment.tokens
        for batch in block:
            assert len({segment.sequence.rope_side for segment in batch}) == 1


def numbered(tokens: int, start: int = 100) -> list[int]:
    return list(range(start, start + tokens))


# A sequence of at most 40 tokens fits into 10 blocks of 4; from there on nobody may starve.
jobs = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 10), st.integers(0, 1), st.integers(1, 3)),
    min_size=1,
    max_size=12,
)
