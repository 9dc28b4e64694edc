"""The door to the input side: scan a job's input once, then stream its rows.

Rows come in input order: sources sorted bytewise by path, rows as they stand in each;
`row_index` counts from 0 over all of them.
"""

from __future__ import annotations

from tightrun.io.input_types import InputChunk, InputError, InputFormat, Scan, Source

__all__ = [
    "InputChunk",
    "InputError",
    "InputFormat",
    "Scan",
    "Source",
]
