"""Rows of the dates job: a sentence that holds one date, and that date in ISO form.

Training rows and held-out rows share no date, no sentence template and no filler: what
`held_out_rows` asks, `training_row` has never shown.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass

from sample_jobs.training.date_styles import (
    FIRST_DAY,
    LAST_DAY,
    STYLE_NAMES,
    Split,
    allows,
    held_out,
    write_date,
)
from sample_jobs.training.sentences import from_invented_words, from_template

SUFFIX = " =>"
ONE_DATE_IN = 8
# What takes longest to learn is shown most often; the held-out rows have every style alike.
TRAINING_WEIGHTS = {"spelled_out": 3.0, "roman": 2.0, "misspelt": 2.0, "spelled_day": 2.0}
HELD_OUT_SEED = 2025
HELD_OUT_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the job; `style` names the notation the date is written in."""

    id: str
    sentence: str
    style: str
    expected: str


def split_of(date: dt.date) -> Split:
    """Which rows a date belongs to; one date in eight is held out."""
    return "held_out" if held_out(date.isoformat(), ONE_DATE_IN) else "training"


def draw_date(rng: random.Random, split: Split, style: str) -> dt.date:
    """A date of the split that can be written in `style`."""
    days = (LAST_DAY - FIRST_DAY).days + 1
    while True:
        date = FIRST_DAY + dt.timedelta(days=rng.randrange(days))
        if split_of(date) == split and allows(style, date):
            return date


def training_row(rng: random.Random, *, bare: float = 0.0) -> Row:
    """A row to learn from; with probability `bare` nothing but the date."""
    weights = [TRAINING_WEIGHTS.get(name, 1.0) for name in STYLE_NAMES]
    style = rng.choices(STYLE_NAMES, weights)[0]
    date = draw_date(rng, "training", style)
    text = write_date(date, style, rng)
    if rng.random() >= bare:
        if rng.random() < 0.5:
            text = from_template(text, rng, "training")
        else:
            text = from_invented_words(text, rng)
    return Row("", _retyped(text, rng), style, date.isoformat())


def held_out_rows(count: int = HELD_OUT_ROWS, seed: int = HELD_OUT_SEED) -> list[Row]:
    """The rows of the sample job: every style equally often, no sentence twice."""
    rng = random.Random(seed)
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < count:
        style = STYLE_NAMES[len(rows) % len(STYLE_NAMES)]
        date = draw_date(rng, "held_out", style)
        text = from_template(write_date(date, style, rng), rng, "held_out")
        text = _retyped(text, rng)
        if text not in seen:
            seen.add(text)
            rows.append(Row(f"date-{len(rows):04d}", text, style, date.isoformat()))
    rng.shuffle(rows)
    return [Row(f"date-{at:04d}", r.sentence, r.style, r.expected) for at, r in enumerate(rows)]


def _retyped(text: str, rng: random.Random) -> str:
    """The text as a hurried person types it: first letter raised, all caps, all small."""
    kind = rng.random()
    if kind < 0.05:
        return text.upper()
    if kind < 0.1:
        return text.lower()
    return text[0].upper() + text[1:] if kind < 0.6 else text
