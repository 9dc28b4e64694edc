"""From a row to a request: its prompt, its id, its sampling; or the error that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from tightrun.core import Completion, Request, RowError
from tightrun.io.columns import (
    INSTRUCTION_INPUT,
    SAMPLING_COLUMN,
    IdColumns,
    PromptColumns,
    choose_id,
    choose_prompt,
)
from tightrun.io.input_types import BadRowError
from tightrun.io.job_model import Job
from tightrun.io.jsonl import json_kind
from tightrun.io.messages import read_messages
from tightrun.io.row_ids import row_id
from tightrun.io.row_sampling import RowSampling

Row = Mapping[str, Any]


class RowReader(Protocol):
    """How the rows of one kind of source are understood. Both methods raise BadRowError."""

    def id_of(self, row: Row) -> str | None:
        """The row's own id; None if it has none, and one is made up."""

    def request(self, row: Row, row_index: int, name: str) -> Request:
        """The request of the row with the id `name`."""


class ColumnReader:
    """Rows whose columns are a prompt and what belongs to it, as the job says or by name."""

    def __init__(self, job: Job, names: Collection[str]) -> None:
        self._prompt: PromptColumns = choose_prompt(job.input, names)
        self._id: IdColumns = choose_id(job.input, names)
        self._sampling = RowSampling(job.sampling)
        wanted = {*self._prompt.columns, *self._id.columns, SAMPLING_COLUMN}
        self.needed = tuple(name for name in names if name in wanted)

    def id_of(self, row: Row) -> str | None:
        """See `RowReader`."""
        return row_id(row, self._id)

    def request(self, row: Row, row_index: int, name: str) -> Request:
        """See `RowReader`."""
        for value in row.values():
            if isinstance(value, BadRowError):
                raise value
        sampling = self._sampling.override(row.get(SAMPLING_COLUMN))
        return Request(row_index, name, self._prompt_of(row), sampling)

    def _prompt_of(self, row: Row) -> str | tuple[Mapping[str, Any], ...]:
        if self._prompt.template is not None:
            return not_empty(self._prompt.template.render(row), "the prompt of the template")
        column = self._prompt.columns[0]
        value = row.get(column)
        if value is None:
            what = "null" if column in row else "missing"
            raise BadRowError("missing_column", f"the column {column!r} is {what} in this row")
        if self._prompt.form == "chat":
            return read_messages(value)
        text = text_in(value, f"the column {column!r}")
        if INSTRUCTION_INPUT in self._prompt.columns[1:] and row.get(INSTRUCTION_INPUT):
            text += "\n\n" + text_in(row[INSTRUCTION_INPUT], f"the column {INSTRUCTION_INPUT!r}")
        return text


def text_in(value: Any, where: str) -> str:
    """A prompt text; raises BadRowError for what is none, or is empty."""
    if isinstance(value, str):
        return not_empty(value, where)
    hint = "; for a chat, set input.messages" if isinstance(value, list) else ""
    raise BadRowError("bad_row", f"{where} must be text, it is {json_kind(value)}{hint}")


def not_empty(text: str, where: str) -> str:
    """`text`; raises BadRowError if there is nothing in it to go on from."""
    if not text:
        raise BadRowError("bad_row", f"{where} is empty; a prompt needs at least one character")
    return text


def identify(id_of: Callable[[Row], str | None], row: Row | BadRowError, made_up: str) -> str:
    """The id of a row, whatever is wrong with it; the scan and the reading agree on it."""
    if isinstance(row, BadRowError):
        return made_up
    try:
        return id_of(row) or made_up
    except BadRowError:
        return made_up


def read_row(
    reader: RowReader, row: Row | BadRowError, row_index: int, made_up: str, place: str
) -> Request | Completion:
    """The row's request; or a completion whose error says, with the place, why there is none."""
    try:
        if isinstance(row, BadRowError):
            raise row
        return reader.request(row, row_index, reader.id_of(row) or made_up)
    except BadRowError as error:
        name = identify(reader.id_of, row, made_up)
        return Completion(row_index, name, error=RowError(error.code, f"{place}: {error}"))
