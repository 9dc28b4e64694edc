"""How long the sequences of a job are: what is known of its prompts and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tightrun.policies.admission import CAUTION
from tightrun.policies.plan import LEAST_CONTEXT, Workload

# Steps of irrational length through all lengths give every stretch of rows the lengths of all; two
# of them, so that long prompts have outputs of all lengths.
PROMPT_STEP, OUTPUT_STEP = 0.6180339887498949, 0.7548776662466927
# Outputs that may not be much longer than the mean one are taken to be all alike.
ALIKE = 0.95


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts, each for an equal share of the rows, and of what the model writes to each
    in the mean; how many sequences there are (None: not known), and what an output may have at the
    most (None: all are alike). `outputs` are tokens of what is written, each for an equal share of
    the rows, where more than their mean is known."""

    prompts: tuple[int, ...]
    output: int
    sequences: int | None = None
    most_output: int | None = None
    outputs: tuple[int, ...] = ()

    @cached_property
    def prompt(self) -> float:
        """Tokens of a mean prompt."""
        return sum(self.prompts) / len(self.prompts)

    @cached_property
    def typical(self) -> int:
        """Tokens of a mean sequence."""
        return round(self.prompt) + self.output

    @cached_property
    def mean_context(self) -> float:
        """Tokens of context a decoding sequence has on average."""
        return self.prompt + self.output / 2

    def blocks(self, block_tokens: int) -> int:
        """Blocks that admission reckons with for a mean sequence."""
        wanted = sum(-(-self.reserved(prompt) // block_tokens) for prompt in self.prompts)
        return -(-wanted // len(self.prompts))

    def reserved(self, prompt: int, allowed: int | None = None) -> int:
        """Tokens that admission reckons with for a prompt of so many, and for a sequence that may
        write so many (None: what all may)."""
        most = self.output if self.most_output is None else self.most_output
        most = most if allowed is None else allowed
        return prompt + max(1, min(most, round(CAUTION * self.output)))

    def prompt_of(self, sequence: int) -> int:
        """The prompt's tokens of a sequence, in an order that mixes all lengths."""
        return self.prompts[int((sequence + 0.5) * PROMPT_STEP % 1.0 * len(self.prompts))]

    def output_of(self, sequence: int) -> int:
        """The output's tokens of a sequence: where outputs stop before they must and nobody knows
        more than their mean, spread evenly about it."""
        share = (sequence + 0.5) * OUTPUT_STEP % 1.0
        if self.outputs:
            return self.outputs[int(share * len(self.outputs))]
        low, high = self._range
        return low + round(share * (high - low))

    @cached_property
    def _range(self) -> tuple[int, int]:
        """The shortest and the longest output."""
        if self.most_output is None or self.output >= ALIKE * self.most_output:
            return self.output, self.output
        high = min(self.most_output, 2 * self.output - 1)
        return max(1, 2 * self.output - high), high


def lengths_of(workload: Workload, window: int) -> Lengths:
    """The lengths of a job in a context of `window` tokens.

    Where nothing is known, a quarter of the longest: that is a guess from bytes.
    """
    longest = min(workload.longest_sequence or window, window)
    guess = LEAST_CONTEXT
    if workload.longest_sequence is not None:
        guess = max(LEAST_CONTEXT // 4, longest // 4)
    rows = workload.rows
    sequences = None if rows is None else max(1, rows * workload.samples)
    if workload.prompts:
        mean = sum(workload.prompts) / len(workload.prompts)
        output = workload.typical_output or round((workload.typical_sequence or 1.5 * mean) - mean)
        output = max(1, min(output, longest - 1))
        prompts = tuple(max(1, min(x, longest - output)) for x in workload.prompts)
        outputs = tuple(min(x, longest - 1) for x in workload.outputs)
        return Lengths(prompts, output, sequences, workload.most_output, outputs)
    typical = max(2, min(workload.typical_sequence or guess, longest))
    output = min(workload.typical_output or max(1, typical // 3), typical - 1)
    return Lengths((typical - output,), output, sequences, workload.most_output)
