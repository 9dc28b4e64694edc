"""A request inside the engine: its tokens, how far it is computed, where its context lives."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass, field

from tightrun.core import Request, RowError, SamplingParams, TokenLogprob


@dataclass(frozen=True, slots=True)
class Kept:
    """In which form the context of a sequence off the device is held, by position of its blocks.

    Blocks before `states_from` are held as tokens only, those before `stored_from` as activations
    (the states its attention receives), the others as keys and values in host memory. Blocks that
    are shared with a resident sequence come before all of these and are no one's to choose.
    """

    states_from: int = 0
    stored_from: int = 0

    def is_states(self, position: int) -> bool:
        return self.states_from <= position < self.stored_from

    def is_stored(self, position: int) -> bool:
        return position >= self.stored_from


@dataclass(eq=False, slots=True)
class Sequence:
    """One sample of one request.

    `tokens` are prompt and output together; the keys and values of the first `computed` of them
    are in the cache. `room` is the most output tokens it may write. `place` is its row in the
    block tables while it runs. `rope_side` tells which rotary table it uses where a model has
    two (see `rope_sides`). `lane` is the batch it belongs to. Of an `offloaded` sequence the first
    `shared` blocks are resident, the others are in the forms that `kept` says; `settled` is what
    that was when its last pass was over, `states` are the blocks of its stored activations by
    position. `started` says that it has run before, be it that it had to give way since;
    `prompt_check` tells its prompt (see `Written`).
    """

    request: Request
    sample: int
    tokens: MutableSequence[int]
    prompt_tokens: int
    room: int
    rope_side: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    place: int = -1
    lane: int = 0
    offloaded: bool = False
    shared: int = 0
    kept: Kept = Kept()
    settled: Kept = Kept()
    started: bool = False
    states: dict[int, int] = field(default_factory=dict)
    finish_reason: str | None = None
    stop_reason: str | None = None
    text: str | None = None
    logprobs: list[TokenLogprob] | None = None
    error: RowError | None = None
    siblings: list[Sequence] = field(default_factory=list)
    donor: Sequence | None = None
    prompt_check: int = 0

    @property
    def sampling(self) -> SamplingParams:
        return self.request.sampling

    @property
    def output_tokens(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def output(self) -> list[int]:
        return list(self.tokens[self.prompt_tokens :])

    @property
    def uncomputed(self) -> int:
        """Tokens whose keys and values are not in the cache yet; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether the next pass computes one token, and that token is an output token."""
        return self.uncomputed == 1 and self.output_tokens > 0

    @property
    def most_tokens(self) -> int:
        """Tokens it holds if it writes all it may."""
        return self.prompt_tokens + self.room
