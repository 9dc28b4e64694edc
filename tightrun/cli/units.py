"""Numbers as a person reads them: 1.2 GiB, 3,412 tok/s, 2 min 05 s."""

from __future__ import annotations

import math

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

DAYS_A_YEAR = 365


def count(number: float) -> str:
    """A whole number with thousands separated: 12,408."""
    return f"{round(number):,}"


def rows(number: int) -> str:
    """A number of rows: 1 row, 2,000 rows."""
    return f"{count(number)} {'row' if number == 1 else 'rows'}"


def files(number: int) -> str:
    """A number of files: 1 file, 12 files."""
    return f"{count(number)} {'file' if number == 1 else 'files'}"


def parameters(number: int) -> str:
    """The size of a model: 70.6 B parameters, 246 M parameters, 1.2 M parameters."""
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            value = number / scale
            digits = 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit} parameters"
    return f"{number} parameters"


def size(number: float) -> str:
    """Bytes in binary units, three digits at the most before the unit: 640 MiB, 1.2 GiB."""
    value, unit = _scaled(number)
    return f"{_digits(value, unit)} {unit}"


def size_of(part: float, whole: float) -> str:
    """Bytes against their budget, both in the unit of the budget: 1.2 of 12.4 GiB."""
    if whole <= 0:
        return size(part)
    _, unit = _scaled(whole)
    scale = 1024.0 ** _BINARY.index(unit)
    return f"{_digits(part / scale, unit)} of {_digits(whole / scale, unit)} {unit}"


def tokens(tokens_per_s: float) -> str:
    """The number of a rate: 3,412; a slow one keeps a decimal: 2.4."""
    return f"{tokens_per_s:.1f}" if 0 < tokens_per_s < 10 else count(tokens_per_s)


def rate(tokens_per_s: float) -> str:
    """Tokens per second: 3,412 tok/s, 2.4 tok/s."""
    return f"{tokens(tokens_per_s)} tok/s"


def change(ratio: float) -> str:
    """How much more or less, from a ratio: +12 %, -3 %, +0 %."""
    return f"{100 * (ratio - 1):+.0f} %"


def bandwidth(bytes_per_s: float) -> str:
    """Bytes per second in decimal units, as links are sold: 0.48 GB/s, 25.1 GB/s, 3.20 MB/s."""
    for scale, unit in ((1e8, "GB/s"), (1e5, "MB/s"), (1e2, "kB/s")):
        if bytes_per_s >= scale:
            value = bytes_per_s / (10 * scale)
            return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"
    return f"{bytes_per_s:.0f} B/s"


def flops(flops_per_s: float) -> str:
    """Floating point operations per second: 0.35 TFLOP/s, 18 GFLOP/s."""
    for scale, prefix in _DECIMAL:
        if flops_per_s >= scale:
            value = flops_per_s / scale
            return f"{value:.2f} {prefix}FLOP/s" if value < 10 else f"{value:.0f} {prefix}FLOP/s"
    return f"{flops_per_s:.0f} FLOP/s"


def percent(share: float) -> str:
    """A share as a percentage: 99.6 %, 100 %; only the whole is ever called 100 %."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    return f"{min(value, 99.9):.1f} %" if value < 100 else f"{value:.0f} %"


def duration(seconds: float) -> str:
    """A time span: 0.2 s, 12 s, 2 min 05 s, 3 h 12 min, 2 d 4 h, 3.2 years."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    hours, rest_min = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest_min:02d} min"
    days, rest_h = divmod(hours, 24)
    if days >= DAYS_A_YEAR:
        return f"{days / DAYS_A_YEAR:,.1f} years"
    return f"{days} d {rest_h} h"


def time_left(seconds: float) -> str:
    """A time still to go, rounded up and as coarse as it is uncertain: 12 s, 3 min, 2 h 10 min."""
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else duration(60 * minutes)


def _scaled(number: float) -> tuple[float, str]:
    value, unit = float(number), _BINARY[0]
    for unit in _BINARY:
        if abs(value) < 1000 or unit == _BINARY[-1]:
            break
        value /= 1024
    return value, unit


def _digits(value: float, unit: str) -> str:
    if unit == "B" or value >= 99.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}"
