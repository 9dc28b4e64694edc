"""How many tokens the prompts of a job have, from the bytes of all and the tokens of some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tightrun.cli.light_tokenizer import LightTokenizer, NoTokenizerError
from tightrun.io.inputs import Scan
from tightrun.io.job import Job
from tightrun.io.row_sample import sample_rows

SAMPLED_ROWS = 1000
# What half a second of tokenising reads.
SAMPLED_BYTES = 3 << 20
# English text and the tokenizers of today; with code or other languages it is less.
USUAL_BYTES_PER_TOKEN = 4.0
QUANTILES = 256


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of a prompt: `fixed` and `per_byte` for every byte that the scan counts for it.

    `bytes_per_token` is that of all rows together, `error` the standard error of their tokens as
    a share of them. Both are what `sampled` rows say; 0 rows say nothing, and the usual is taken.
    `output` is the mean of what the sampled rows may write, None without any; `outputs` are those,
    ascending, where rows do not all say the same.
    """

    fixed: float
    per_byte: float
    bytes_per_token: float
    error: float
    sampled: int
    output: float | None = None
    outputs: tuple[int, ...] = ()

    def tokens(self, lengths: np.ndarray) -> np.ndarray:
        """Tokens of prompts of so many bytes, float64 [rows]; at least 1."""
        return np.maximum(1.0, self.fixed + self.per_byte * lengths)

    def quantiles(self, lengths: np.ndarray, most: int = QUANTILES) -> tuple[int, ...]:
        """Tokens of up to `most` prompts, ascending, each the mean of an equal share of the rows;
        together they have as many tokens as all."""
        ordered = np.sort(lengths)
        groups = np.array_split(ordered, min(most, len(ordered)))
        means = np.array([group.mean() for group in groups])
        return tuple(int(x) for x in np.rint(self.tokens(means)))


USUAL = TokenEstimate(0.0, 1 / USUAL_BYTES_PER_TOKEN, USUAL_BYTES_PER_TOKEN, math.nan, 0)


def estimate_tokens(
    job: Job, scan: Scan, rows: int, notify: Callable[[str], None]
) -> TokenEstimate:
    """Counts the tokens of about 1,000 of the first `rows` rows; `notify` is told of what cannot
    be counted. Raises InputError for an input that is no longer what was scanned."""
    sample = list(sample_rows(scan, job, rows, SAMPLED_ROWS, SAMPLED_BYTES))
    requests = [row.request for row in sample]
    allowed = [request.sampling.max_tokens for request in requests]
    output = sum(allowed) / len(allowed) if allowed else None
    usual = replace(USUAL, output=output, outputs=_quantiles(allowed))
    try:
        tokenizer = LightTokenizer(job)
    except NoTokenizerError as error:
        notify(f"{error}; {USUAL_BYTES_PER_TOKEN:g} bytes are taken for a token")
        return usual
    for note in tokenizer.notes:
        notify(note)
    pairs = [
        (row.nbytes, count)
        for row, count in zip(sample, tokenizer.counts(requests), strict=True)
        if count is not None
    ]
    if not pairs:
        notify(
            f"no prompt of the sample can be rendered; {USUAL_BYTES_PER_TOKEN:g} bytes are taken "
            "for a token"
        )
        return usual
    nbytes, tokens = np.array(pairs, dtype=np.float64).T
    found = fit(nbytes, tokens, scan.lengths[:rows])
    return replace(found, output=usual.output, outputs=usual.outputs)


def fit(nbytes: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> TokenEstimate:
    """The line through the sample, and how far its sum over all `lengths` may be off.

    A regression estimator: its standard error is that of the residuals' mean, without what the
    finite number of rows makes certain (Cochran, Sampling Techniques, chapter 7).
    """
    fixed, per_byte = _line(nbytes, tokens)
    residuals = tokens - fixed - per_byte * nbytes
    sampled, rows = len(nbytes), len(lengths)
    mean = max(1.0, fixed + per_byte * float(lengths.mean()))
    spread = float(residuals.std(ddof=1)) if sampled > 1 else math.nan
    unseen = max(0.0, 1.0 - sampled / rows)
    error = spread / math.sqrt(sampled) * math.sqrt(unseen) / mean if unseen else 0.0
    return TokenEstimate(fixed, per_byte, float(lengths.mean()) / mean, error, sampled)


def _line(nbytes: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Tokens beside those of the bytes, and tokens per byte; neither can be less than nothing."""
    centred = nbytes - nbytes.mean()
    spread = float(centred @ centred)
    slope = float(centred @ tokens) / spread if spread else 0.0
    fixed = float(tokens.mean() - slope * nbytes.mean())
    if slope > 0 and fixed >= 0:
        return fixed, slope
    if not nbytes.sum():
        return float(tokens.mean()), 0.0
    return 0.0, float(tokens.sum() / nbytes.sum())


def _quantiles(tokens: Sequence[int], most: int = QUANTILES) -> tuple[int, ...]:
    """Up to `most` of the tokens, ascending, each for an equal share; nothing if all are alike."""
    if len(set(tokens)) < 2:
        return ()
    ordered, count = sorted(tokens), min(most, len(tokens))
    return tuple(ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count))
