"""Who starts: decided from free KV blocks and from how long outputs have turned out so far."""

from __future__ import annotations

from dataclasses import dataclass, field

# More than the outputs so far: rows that turn out longer cost preemption.
CAUTION = 1.25


@dataclass(slots=True)
class OutputLengths:
    """Learns what share of its `max_tokens` a sequence really writes.

    Starts from the worst case and follows the finished ones, so that a job whose rows all stop
    early soon runs more of them together. Preemption pays for the error.
    """

    finished: int = 0
    tokens: int = 0
    allowed: int = 0
    caution: float = field(default=CAUTION)

    def learn(self, tokens: int, max_tokens: int) -> None:
        self.finished += 1
        self.tokens += tokens
        self.allowed += max_tokens

    def expected(self, max_tokens: int) -> int:
        """Output tokens to reckon with for a sequence that may write `max_tokens`."""
        if self.finished < 32:
            return max_tokens
        share = min(1.0, self.caution * self.tokens / max(1, self.allowed))
        return max(1, min(max_tokens, round(share * max_tokens)))


def may_start(free_blocks: int, promised_blocks: int, wanted_blocks: int, running: int) -> bool:
    """Whether a sequence expected to grow to `wanted_blocks` may start now.

    `promised_blocks` is what the running sequences are still expected to take. The first one
    always starts: the plan made sure that a single sequence fits.
    """
    return running == 0 or wanted_blocks <= free_blocks - promised_blocks
