"""Quantities as people write them, `24GiB`, `90%`, `500MB/s`, `1h30m`, and back again.

`format_x(parse_x(text))` reads as the same quantity for every accepted text. Numbers go
through `Decimal`, so that `0.1GB` is 100,000,000 bytes and not one less.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal

_NUMBER = r"([0-9]{1,24}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})"
_QUANTITY = re.compile(_NUMBER + r"\s*([a-zA-Z/%]*)")
_DURATION_PART = re.compile(_NUMBER + r"\s*([a-z]+)\s*")
_CLOCK = re.compile(r"(?:([0-9]{1,4})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])")
_COUNT = re.compile(r"[0-9]{1,18}|[0-9]{1,3}(?:([_,])[0-9]{3})(?:\1[0-9]{3}){0,5}")

_BYTE_UNITS = {
    **{"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15},
    **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50},
}
_BYTE_NAMES = {"KB": "kB", "KIB": "KiB", "MIB": "MiB", "GIB": "GiB", "TIB": "TiB", "PIB": "PiB"}
_FLOP_PREFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_SMALLEST_BARE_BYTES = 2**20
_LARGEST_BYTES = 2**62

SIZE_HELP = "a size such as 24GiB, 400MiB or 8GB"
AMOUNT_HELP = f"a share such as 90%, or {SIZE_HELP}"
RATE_HELP = "a rate such as 500MB/s or 25GB/s"
FLOP_RATE_HELP = "a rate such as 30TFLOP/s or 800GFLOP/s"
DURATION_HELP = "a time such as 3h, 90m, 1h30m or 12:00:00"
TOLERANCE_HELP = "a share such as 5%, a number of rows, or none"


@dataclass(frozen=True, slots=True)
class Amount:
    """Part of a capacity: a share of it in (0, 1], or bytes. Exactly one is set."""

    share: float | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        assert (self.share is None) != (self.bytes is None), "either a share or bytes"

    @property
    def value(self) -> float | int:
        """The share as a float, or the bytes as an int."""
        return self.share if self.share is not None else self.bytes or 0

    def of(self, capacity: int) -> int:
        """Bytes, given the capacity in bytes that a share is taken of."""
        return math.floor(self.share * capacity) if self.share is not None else self.bytes or 0

    def __str__(self) -> str:
        return format_share(self.share) if self.share is not None else format_size(self.bytes or 0)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many rows may fail: a share of all rows in [0, 1], or a count. Exactly one is set."""

    share: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        assert (self.share is None) != (self.count is None), "either a share or a count"

    def allows(self, failed: int, rows: int) -> bool:
        """Whether `failed` of `rows` rows is within what may fail."""
        if self.share is not None:
            return failed <= self.share * rows
        return failed <= (self.count or 0)

    def __str__(self) -> str:
        return format_share(self.share) if self.share is not None else str(self.count)


def parse_size(value: object) -> int:
    """Bytes. A bare number counts as bytes only from 1 MiB on, or as nothing at all when 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value == 0 or _SMALLEST_BARE_BYTES <= value <= _LARGEST_BYTES:
            return value
        raise ValueError(f"{_clip(value)} has no unit; write {SIZE_HELP}")
    number, unit = _split(value, SIZE_HELP)
    size = number * _byte_scale(value, unit, SIZE_HELP)
    if size > _LARGEST_BYTES:
        raise ValueError(f"{_clip(value)} is larger than any memory; write {SIZE_HELP}")
    return int(size)


def format_size(size: int) -> str:
    """The largest unit that leaves a whole number: `25769803776` is `24GiB`."""
    for unit in ("TIB", "GIB", "MIB", "TB", "GB", "KIB", "MB", "KB"):
        if size and size % _BYTE_UNITS[unit] == 0:
            return f"{size // _BYTE_UNITS[unit]}{_BYTE_NAMES.get(unit, unit)}"
    return f"{size}B"


def parse_share(value: object, *, help_text: str = "a share such as 90% or 0.9") -> float:
    """A share in [0, 1], written `90%` or `0.9`."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        share = float(value) if abs(value) <= 1 else math.inf
    else:
        number, unit = _split(value, help_text)
        if unit not in ("", "%"):
            raise ValueError(f"{_clip(value)} is not {help_text}")
        share = float(number / 100 if unit else number)
    if not 0 <= share <= 1:
        raise ValueError(f"{_clip(value)} is not between 0% and 100%; write {help_text}")
    return share


def format_share(share: float) -> str:
    """`0.9` as `90%`."""
    return f"{_plain(Decimal(repr(share)) * 100)}%"


def parse_amount(value: object) -> Amount:
    """A share of a capacity (`90%`, `0.9`) or a size (`24GiB`); 0 is none of it."""
    if isinstance(value, Amount):
        return value
    if isinstance(value, float):
        return Amount(share=parse_share(value, help_text=AMOUNT_HELP))
    if isinstance(value, str) and value.rstrip().endswith("%"):
        return Amount(share=parse_share(value, help_text=AMOUNT_HELP))
    try:
        return Amount(bytes=parse_size(value))
    except ValueError as error:
        raise ValueError(str(error).replace(SIZE_HELP, AMOUNT_HELP)) from None


def parse_tolerance(value: object) -> Tolerance:
    """A share of the rows (`5%`, `0.05`) or a number of rows (`100`)."""
    if isinstance(value, Tolerance):
        return value
    if isinstance(value, float) or (isinstance(value, str) and value.rstrip().endswith("%")):
        return Tolerance(share=parse_share(value, help_text=TOLERANCE_HELP))
    try:
        count = parse_count(value)
    except ValueError:
        count = -1
    if count < 0:
        raise ValueError(f"{_clip(value)} is not {TOLERANCE_HELP}")
    return Tolerance(count=count)


def parse_rate(value: object) -> float:
    """Bytes per second. A bare number has no unit and is refused."""
    number, unit = _split(value, RATE_HELP)
    unit = re.sub(r"ps$", "/s", unit)
    if not unit.endswith("/s"):
        raise ValueError(f"{_clip(value)} is not a rate; write {RATE_HELP}")
    return _positive(value, float(number * _byte_scale(value, unit[:-2], RATE_HELP)), RATE_HELP)


def format_rate(rate: float) -> str:
    """Bytes per second in the largest decimal unit that reads back exactly."""
    return _format_per_s(rate, {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1})


def parse_flop_rate(value: object) -> float:
    """Floating-point operations per second."""
    number, unit = _split(value, FLOP_RATE_HELP)
    match = re.fullmatch(r"([KMGTP]?)FLOPS?(?:/S)?", unit.upper())
    if not match:
        raise ValueError(f"{_clip(value)} is not {FLOP_RATE_HELP}")
    return _positive(value, float(number * _FLOP_PREFIXES[match[1]]), FLOP_RATE_HELP)


def format_flop_rate(rate: float) -> str:
    """FLOP/s in the largest unit that reads back exactly."""
    return _format_per_s(rate, {"TFLOP": 10**12, "GFLOP": 10**9, "MFLOP": 10**6, "FLOP": 1})


def parse_duration(value: object) -> float:
    """Seconds, from `3h`, `90m`, `1h30m`, `2d`, `45s`, or Slurm's `12:00:00` and `1-12:00:00`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{_clip(value)} has no unit; write {DURATION_HELP}")
    text = value.strip() if isinstance(value, str) else ""
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        total = Decimal(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    else:
        total = _sum_of_parts(value, text)
    return _positive(value, float(total), DURATION_HELP)


def format_duration(seconds: float) -> str:
    """`5400.0` as `1h30m`."""
    if not seconds.is_integer():
        return f"{_plain(Decimal(repr(seconds)))}s"
    rest, text = int(seconds), ""
    for unit in ("h", "m", "s"):
        count, rest = divmod(rest, _SECONDS[unit])
        text += f"{count}{unit}" if count else ""
    return text


def parse_count(value: object) -> int:
    """A whole number; text may group its digits as `10_000` or `10,000`, and 1e4 is 10000."""
    if isinstance(value, str) and _COUNT.fullmatch(value.strip()):
        return int(re.sub("[_,]", "", value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{_clip(value)} is not a whole number")


def _split(value: object, help_text: str) -> tuple[Decimal, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{_clip(value)} has no unit; write {help_text}")
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{_clip(value)} is not {help_text}")
    return Decimal(match[1]), match[2]


def _byte_scale(value: object, unit: str, help_text: str) -> int:
    if not unit:
        raise ValueError(f"{_clip(value)} has no unit; write {help_text}")
    if unit.endswith("b") and unit != unit.lower():
        raise ValueError(f"in {_clip(value)}, {unit} would be bits; write {unit[:-1]}B for bytes")
    if unit.upper() in ("K", "M", "G", "T", "P"):
        prefix = unit.upper()
        choice = f"{prefix}iB (1024) or {prefix}B (1000)"
        raise ValueError(f"{_clip(value)} could be either unit; write {choice}")
    if unit.upper() not in _BYTE_UNITS:
        raise ValueError(f"{_clip(value)} has no unit we know; write {help_text}")
    return _BYTE_UNITS[unit.upper()]


def _sum_of_parts(value: object, text: str) -> Decimal:
    total, end, last = Decimal(0), 0, math.inf
    while end < len(text):
        part = _DURATION_PART.match(text, end)
        scale = _SECONDS.get(part[2]) if part else None
        if not part or not scale or scale >= last:
            raise ValueError(f"{_clip(value)} is not {DURATION_HELP}")
        total, end, last = total + Decimal(part[1]) * scale, part.end(), scale
    return total


def _positive(value: object, number: float, help_text: str) -> float:
    if not number > 0:
        raise ValueError(f"{_clip(value)} must be more than nothing; write {help_text}")
    return number


def _format_per_s(rate: float, units: dict[str, int]) -> str:
    number = Decimal(repr(rate))
    for unit, scale in units.items():
        scaled = number / scale
        if number >= scale and float(Decimal(_plain(scaled)) * scale) == rate:
            return f"{_plain(scaled)}{unit}/s"
    return f"{_plain(number)}{next(reversed(units))}/s"


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _clip(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "that number"
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
