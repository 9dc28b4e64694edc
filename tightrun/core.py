"""The nouns that cross rooms: what a row asks for, what comes back, what a pass was.

Standard library only, so that every room may import it without cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_ROW_WORDS = re.compile("“[^”]*”")

FinishReason = Literal["stop", "length", "error"]

ERROR_CODES = (
    "bad_row",
    "missing_column",
    "bad_messages",
    "context_length",
    "bad_sampling",
    "unsupported",
    "oom",
    "internal",
)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one request are drawn; the names and meanings of OpenAI and vLLM.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 are off. `logprobs` is
    the number of alternatives to report per token; 0 reports the chosen token, None nothing.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    n: int = 1
    logprobs: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one generated token, of the unprocessed logits, natural logarithm.

    `top` holds the most likely alternatives as (token_id, token, logprob), best first.
    """

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """Output tokens of one sample of a row that has not finished, from position `first` on.

    `prompt` tells the tokens they follow (a CRC-32), so that they go on behind no other prompt.
    `logprobs` has one for each token where the row asks for them, without the tokens' texts.
    """

    row_index: int
    sample: int
    prompt: int
    tokens: Sequence[int]
    first: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One input row, ready to be tokenised.

    `prompt` is a text, or the messages of a chat (`{"role": ..., "content": ...}`).
    `raw` marks a text that must never be wrapped in a chat template (`/v1/completions`).
    `attempt` counts how often the row was tried again after an error, `written` is what an
    earlier run has drawn of its samples, each from its first token on.
    """

    row_index: int
    id: str
    prompt: str | tuple[Mapping[str, Any], ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    raw: bool = False
    attempt: int = 0
    written: tuple[Written, ...] = ()


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no text: a code of `ERROR_CODES` and a sentence for the person.

    What the row itself says stands in the sentence as `row_words`.
    """

    code: str
    message: str

    @property
    def for_logs(self) -> str:
        """The message without any words of the row, which is what a log may hold."""
        return _ROW_WORDS.sub("“…”", self.message)


def row_words(words: object, most: int = 200) -> str:
    """Words of a row as they stand in the message of its error: marked, and not many."""
    text = str(words).replace("“", '"').replace("”", '"')
    return f"“{text[:most]}”"


@dataclass(frozen=True, slots=True)
class Sample:
    """One generated text. `stop_reason` is the stop string, or the stop token's id as text."""

    text: str
    finish_reason: FinishReason
    stop_reason: str | None = None
    completion_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What one row came to: its samples, or the error that stands in their place."""

    row_index: int
    id: str
    samples: tuple[Sample, ...] = ()
    prompt_tokens: int = 0
    seed: int | None = None
    attempt: int = 0
    error: RowError | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One pass over the layers: a row of the `steps` report table. Times in seconds."""

    run: int
    iteration: int
    phase: Literal["prefill", "decode", "mixed"]
    started_s: float
    elapsed_s: float
    batches: int
    sequences: int
    prefill_tokens: int
    decode_tokens: int
    context_tokens: int
    recompute_ratio: float = 0.0
    recompute_form: str = ""
    weight_bytes_in: int = 0
    kv_bytes_in: int = 0
    kv_bytes_out: int = 0
    disk_bytes: int = 0
    compute_s: float = 0.0
    h2d_s: float = 0.0
    d2h_s: float = 0.0
    disk_s: float = 0.0
    idle_s: float = 0.0
    predicted_s: float = 0.0
    bound_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """What one lane (h2d, d2h, disk, compute, cpu) did in a pass. Seconds since the run began."""

    iteration: int
    lane: str
    name: str
    start_s: float
    end_s: float
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class RunNote:
    """Something a person should know of a run while it goes, in a sentence.

    `event` names it for programs, `figures` are its numbers for the events of the run.
    """

    event: str
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a job: the row of the `runs` report table. Peaks and rates are measured."""

    run: int
    started: str
    ended: str
    exit_code: int
    rows: int
    failed: int
    input_tokens: int
    output_tokens: int
    seconds: float
    output_tokens_per_s: float
    planned_output_tokens_per_s: float
    binding: str
    bound_share: float
    h2d_bytes_per_s: float = 0.0
    d2h_bytes_per_s: float = 0.0
    disk_bytes_per_s: float = 0.0
    flops_per_s: float = 0.0
    idle_s: float = 0.0
    peak_gpu_bytes: int = 0
    peak_cpu_bytes: int = 0
