"""Every sentence holds the date it is answered with, and nothing asked about was ever shown."""

from __future__ import annotations

import datetime as dt
import random
import re

import pytest

from sample_jobs.training.date_styles import (
    MONTHS,
    STYLE_NAMES,
    misspellings,
    ordinal,
    ordinal_words,
    write_date,
    year_words,
)
from sample_jobs.training.dates_data import (
    SUFFIX,
    Row,
    draw_date,
    held_out_rows,
    split_of,
    training_row,
)
from sample_jobs.training.sentences import FILLERS, TEMPLATES

DATE = dt.date(1997, 3, 3)


def training_rows(count: int, seed: int = 7) -> list[Row]:
    rng = random.Random(seed)
    return [training_row(rng) for _ in range(count)]


def read_back(text: str) -> dt.date:
    """Reads a date as a person does; written apart from the generator, to disagree with it."""
    lowered = text.lower()
    match = re.search(r"\b(\d{4})[-/._](\d{1,2})[-/._](\d{1,2})(?!\d)", lowered)
    match = match or re.search(r"\b(\d{4})(\d{2})(\d{2})\b", lowered)
    if match:
        return dt.date(*map(int, match.groups()))
    if match := re.search(r"\b(\d{1,2})\. ?(\d{1,2})\. ?(\d{4})", lowered):
        return dt.date(*map(int, reversed(match.groups())))
    months = "|".join(name.lower()[:3] for name in MONTHS)
    month = re.search(rf"(?<![a-z])({months})", lowered)
    assert month, text
    number = [name.lower()[:3] for name in MONTHS].index(month[1]) + 1
    year = re.search(r"\d{4}", lowered)
    short = re.search(r"'(\d{2})", lowered)
    if year:
        full = int(year[0])
    else:
        assert short, text
        full = int(short[1]) + (1900 if int(short[1]) >= 50 else 2000)
    rest = re.sub(r"\d{4}|'\d{2}", " ", lowered)
    day = re.search(r"\d{1,2}", rest)
    assert day, text
    return dt.date(full, number, int(day[0]))


@pytest.mark.parametrize(
    "style", sorted({*STYLE_NAMES} - {"spelled_day", "spelled_out", "roman", "misspelt"})
)
def test_a_date_in_figures_reads_back_as_itself(style: str) -> None:
    rng = random.Random(3)
    for _ in range(300):
        date = draw_date(rng, "training", style)
        text = write_date(date, style, rng)
        assert read_back(text) == date, text


def test_a_day_in_words_is_the_ordinal_of_its_number() -> None:
    assert [ordinal_words(n) for n in (1, 2, 3, 5, 8, 9, 12, 20, 21, 30)] == [
        *("first", "second", "third", "fifth", "eighth", "ninth", "twelfth", "twentieth"),
        *("twenty-first", "thirtieth"),
    ]
    assert len({ordinal_words(n) for n in range(1, 32)}) == 31


def test_a_day_in_figures_has_the_ending_people_write() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st"),
    ]


def test_a_year_in_words_belongs_to_one_year_only() -> None:
    rng = random.Random(1)
    spelled = {(year_words(year, rng), year) for year in range(1900, 2050) for _ in range(20)}
    assert len({words for words, _ in spelled}) == len(spelled)
    assert {("nineteen ninety-seven", 1997), ("nineteen oh five", 1905)} <= spelled
    assert {("two thousand", 2000), ("twenty seventeen", 2017)} <= spelled


def test_a_roman_month_stands_between_day_and_year() -> None:
    text = write_date(dt.date(1997, 8, 3), "roman", random.Random(0))
    assert re.fullmatch(r"3[-. ]+VIII[-. ]+1997", text)


def test_a_weekday_in_front_is_the_right_one() -> None:
    for seed in range(20):
        assert write_date(DATE, "weekday", random.Random(seed)).startswith("Mon")


def test_a_two_digit_year_is_only_written_within_its_century_rule() -> None:
    rng = random.Random(5)
    years = {draw_date(rng, "training", "short_year").year for _ in range(3000)}
    assert min(years) == 1950
    assert max(years) == 2049


def test_a_misspelling_belongs_to_one_month_and_is_no_months_name() -> None:
    months = (1, 2, 3, 4, 8, 9, 10, 11, 12)
    everything = [name for month in months for name in misspellings(month)]
    assert len(everything) == len(set(everything))
    assert not {*everything} & {*MONTHS}
    assert "Febuary" in misspellings(2)


def test_training_rows_never_show_a_held_out_date() -> None:
    for row in training_rows(5000):
        assert split_of(dt.date.fromisoformat(row.expected)) == "training"


def test_held_out_rows_ask_only_for_held_out_dates() -> None:
    for row in held_out_rows():
        assert split_of(dt.date.fromisoformat(row.expected)) == "held_out"


def test_the_splits_share_no_template_and_no_filler() -> None:
    assert not {*TEMPLATES["training"]} & {*TEMPLATES["held_out"]}
    for fillers in FILLERS.values():
        assert not {*fillers["training"]} & {*fillers["held_out"]}


def test_every_template_holds_exactly_one_date() -> None:
    for templates in TEMPLATES.values():
        for template in templates:
            assert template.count("{date}") == 1, template


def test_no_template_puts_a_bare_number_beside_the_date() -> None:
    for templates in TEMPLATES.values():
        for template in templates:
            assert not re.search(r"\{(count|clock|code)\} \{date\}", template), template
            assert not re.search(r"\{date\} \{(count|clock|code)\}", template), template


def test_no_code_can_be_read_as_a_compact_date() -> None:
    rows = [row for row in training_rows(5000) if row.style not in ("compact", "glued")]
    assert not [row.sentence for row in rows if re.search(r"\d{8}", row.sentence)]


def test_no_sentence_is_asked_twice_or_shown_in_training() -> None:
    asked = {row.sentence for row in held_out_rows()}
    assert len(asked) == 2000
    assert not asked & {row.sentence for row in training_rows(20000)}


def test_the_rows_ask_for_every_style_about_equally_often() -> None:
    styles = [row.style for row in held_out_rows()]
    assert {*styles} == {*STYLE_NAMES}
    assert min(map(styles.count, STYLE_NAMES)) >= 2000 // len(STYLE_NAMES)


def test_the_same_seed_gives_the_same_rows() -> None:
    assert held_out_rows() == held_out_rows()
    assert training_rows(200) == training_rows(200)
    assert held_out_rows(seed=1) != held_out_rows(seed=2)


def test_no_sentence_holds_the_mark_that_ends_the_prompt() -> None:
    assert not [row for row in held_out_rows() if SUFFIX.strip() in row.sentence]
