"""The ways people write a date: nineteen families of notation, all of them unambiguous.

`03/04/1997` is left out on purpose: no model can know which of its numbers is the month. Dots
are day first, year-first notations are year, month, day, and `'97` is a year of 1950-2049.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from typing import Literal

Split = Literal["training", "held_out"]

FIRST_DAY = dt.date(1900, 1, 1)
LAST_DAY = dt.date(2049, 12, 31)

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
SMALL = (
    *("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
IRREGULAR_ORDINALS = {
    **{"one": "first", "two": "second", "three": "third", "five": "fifth"},
    **{"eight": "eighth", "nine": "ninth", "twelve": "twelfth"},
}
# June and July stay as they are: one wrong letter makes one of the other.
MISSPELT_MONTHS = (1, 2, 3, 4, 8, 9, 10, 11, 12)


def held_out(thing: str, one_in: int) -> bool:
    """Whether `thing` is kept from training: one in `one_in`, by a hash, so always the same."""
    return int.from_bytes(sha256(thing.encode()).digest()[:4], "big") % one_in == 0


def ordinal(number: int) -> str:
    """`3` -> `3rd`."""
    if number in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def number_words(number: int) -> str:
    """`97` -> `ninety-seven`, for 1 to 99."""
    if number < 20:
        return SMALL[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f"-{SMALL[ones]}" if ones else "")


def ordinal_words(number: int) -> str:
    """`23` -> `twenty-third`, for 1 to 99."""
    head, dash, last = number_words(number).rpartition("-")
    if last in IRREGULAR_ORDINALS:
        return head + dash + IRREGULAR_ORDINALS[last]
    return head + dash + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year_words(year: int, rng: random.Random) -> str:
    """`1997` -> `nineteen ninety-seven`; years of this century in one of their two readings."""
    century, rest = divmod(year, 100)
    if rest == 0:
        return "two thousand" if year == 2000 else f"{SMALL[century]} hundred"
    if century == 20 and (rest < 10 or rng.random() < 0.5):
        return f"two thousand {rng.choice(('and ', ''))}{number_words(rest)}"
    return f"{number_words(century)} {'oh ' if rest < 10 else ''}{number_words(rest)}"


@cache
def misspellings(month: int) -> tuple[str, ...]:
    """Names of a month with one letter lost, doubled or swapped with the next."""
    name = MONTHS[month - 1]
    found: set[str] = set()
    for at in range(1, len(name)):
        found.add(name[:at] + name[at + 1 :])
        found.add(name[:at] + name[at] + name[at:])
        if at + 1 < len(name):
            found.add(name[:at] + name[at + 1] + name[at] + name[at + 2 :])
    return tuple(sorted(found - {name, *MONTHS}))


def _cased(name: str, rng: random.Random) -> str:
    return rng.choice((name, name, name, name, name.upper(), name.lower()))


def _month(date: dt.date, rng: random.Random) -> str:
    return _cased(MONTHS[date.month - 1], rng)


def _short(date: dt.date, rng: random.Random) -> str:
    name = MONTHS[date.month - 1]
    short = "Sept" if date.month == 9 and rng.random() < 0.3 else name[:3]
    return _cased(short, rng)


def _any_month(date: dt.date, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return _month(date, rng)
    return _short(date, rng) + ("." if date.month != 5 and rng.random() < 0.4 else "")


def _day(date: dt.date, rng: random.Random) -> str:
    return f"{date.day:02d}" if rng.random() < 0.25 else str(date.day)


def _slashes(date: dt.date, rng: random.Random) -> str:
    return rng.choice(
        (f"{date:%Y/%m/%d}", f"{date:%Y.%m.%d}", f"{date.year}/{date.month}/{date.day}")
    )


def _timestamp(date: dt.date, rng: random.Random) -> str:
    clock = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
    seconds = f":{rng.randrange(60):02d}"
    return rng.choice((f"{date}T{clock}{seconds}Z", f"{date} {clock}", f"{date} {clock}{seconds}"))


def _compact(date: dt.date, rng: random.Random) -> str:
    return rng.choice((f"{date:%Y%m%d}", f"{date:%Y%m%d}", f"{date:%Y_%m_%d}"))


def _dots(date: dt.date, rng: random.Random) -> str:
    short = f"{date.day}.{date.month}.{date.year}"
    return rng.choice((f"{date:%d.%m.%Y}", short, f"{date.day}. {date.month}. {date.year}"))


def _day_month_year(date: dt.date, rng: random.Random) -> str:
    return f"{_day(date, rng)} {_any_month(date, rng)}{rng.choice((' ', ' ', ', '))}{date.year}"


def _ordinal_of(date: dt.date, rng: random.Random) -> str:
    opening = rng.choice(("the ", "the ", ""))
    joint = rng.choice((" of ", " of ", " day of ", " "))
    comma = rng.choice(("", "", ","))
    return f"{opening}{ordinal(date.day)}{joint}{_any_month(date, rng)}{comma} {date.year}"


def _month_day_year(date: dt.date, rng: random.Random) -> str:
    return f"{_any_month(date, rng)} {_day(date, rng)}{rng.choice((', ', ', ', ' '))}{date.year}"


def _month_ordinal(date: dt.date, rng: random.Random) -> str:
    the = rng.choice(("", "", "the "))
    comma = rng.choice((",", ",", ""))
    return f"{_any_month(date, rng)} {the}{ordinal(date.day)}{comma} {date.year}"


def _dashes(date: dt.date, rng: random.Random) -> str:
    mark = rng.choice(("-", "-", "/"))
    return f"{_day(date, rng)}{mark}{_short(date, rng)}{mark}{date.year}"


def _glued(date: dt.date, rng: random.Random) -> str:
    return f"{date.day:02d}{_cased(MONTHS[date.month - 1][:3], rng)}{date.year}"


def _short_year(date: dt.date, rng: random.Random) -> str:
    year = f"'{date.year % 100:02d}"
    month = _any_month(date, rng)
    return rng.choice(
        (
            f"{_day(date, rng)} {month} {year}",
            f"{month} {date.day}, {year}",
            f"the {ordinal(date.day)} of {month} {year}",
        )
    )


def _weekday(date: dt.date, rng: random.Random) -> str:
    name = WEEKDAYS[date.weekday()]
    name = rng.choice((name, name, name[:3]))
    rest = rng.choice((_day_month_year, _month_day_year, _ordinal_of))(date, rng)
    return f"{name}{rng.choice((', ', ' '))}{rest}"


def _spelled_day(date: dt.date, rng: random.Random) -> str:
    day, month = ordinal_words(date.day), _month(date, rng)
    comma = rng.choice(("", ","))
    return rng.choice(
        (f"the {day} of {month}{comma} {date.year}", f"{month} the {day}, {date.year}")
    )


def _spelled_out(date: dt.date, rng: random.Random) -> str:
    day, month, year = ordinal_words(date.day), _month(date, rng), year_words(date.year, rng)
    return rng.choice((f"the {day} of {month}, {year}", f"{month} the {day}, {year}"))


def _year_first(date: dt.date, rng: random.Random) -> str:
    mark = rng.choice((" ", " ", ", ", "-"))
    month = _short(date, rng) if mark == "-" else _any_month(date, rng)
    return f"{date.year}{mark}{month}{'-' if mark == '-' else ' '}{_day(date, rng)}"


def _in_the_year(date: dt.date, rng: random.Random) -> str:
    day = rng.choice(
        (str(date.day), f"the {ordinal(date.day)} of", f"the {ordinal(date.day)} day of")
    )
    return f"{day} {_month(date, rng)} in the year {date.year}"


def _month_then_day(date: dt.date, rng: random.Random) -> str:
    tail = rng.choice(
        (f"on the {ordinal(date.day)}", f"the {ordinal(date.day)}", f"day {date.day}")
    )
    return f"{_month(date, rng)} {date.year}, {tail}"


def _roman(date: dt.date, rng: random.Random) -> str:
    mark = rng.choice((".", ". ", " ", "-"))
    return f"{date.day}{mark}{ROMAN[date.month - 1]}{mark}{date.year}"


def _misspelt(date: dt.date, rng: random.Random) -> str:
    month = rng.choice(misspellings(date.month))
    forms = (
        f"{date.day} {month} {date.year}",
        f"{month} {date.day}, {date.year}",
        f"the {ordinal(date.day)} of {month} {date.year}",
    )
    return rng.choice(forms)


STYLES: Mapping[str, Callable[[dt.date, random.Random], str]] = {
    "slashes": _slashes,
    "timestamp": _timestamp,
    "compact": _compact,
    "dots": _dots,
    "day_month_year": _day_month_year,
    "ordinal_of": _ordinal_of,
    "month_day_year": _month_day_year,
    "month_ordinal": _month_ordinal,
    "dashes": _dashes,
    "glued": _glued,
    "short_year": _short_year,
    "weekday": _weekday,
    "spelled_day": _spelled_day,
    "spelled_out": _spelled_out,
    "year_first": _year_first,
    "in_the_year": _in_the_year,
    "month_then_day": _month_then_day,
    "roman": _roman,
    "misspelt": _misspelt,
}
STYLE_NAMES = tuple(STYLES)


def write_date(date: dt.date, style: str, rng: random.Random) -> str:
    """The date in one of the notations of `STYLE_NAMES`, its details drawn from `rng`."""
    return STYLES[style](date, rng)


def allows(style: str, date: dt.date) -> bool:
    """Whether `date` can be written in `style` so that only one reading remains."""
    if style == "misspelt":
        return date.month in MISSPELT_MONTHS
    return style != "short_year" or 1950 <= date.year <= 2049
