"""What one field of a section asks of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic_core import PydanticCustomError

from tightrun.io.job_paths import STDIN

if TYPE_CHECKING:
    from tightrun.io.job_model import Job
    from tightrun.io.job_sections import InputSpec, Machine, OutputSpec, SamplingSpec

CHECK_FAILED = "check_failed"
_JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class Conflict(NamedTuple):
    """A field (dotted; empty: the section itself) that does not go with the others."""

    field: str
    message: str


def refuse(conflicts: Iterator[Conflict] | Sequence[Conflict]) -> None:
    """Raise all conflicts of a section at once, in the form that `job_errors` takes apart."""
    found = list(conflicts)
    if found:
        text = "; ".join(f"{c.field}: {c.message}" if c.field else c.message for c in found)
        raise PydanticCustomError(CHECK_FAILED, "{text}", {"text": text, "conflicts": found})


def input_problems(spec: InputSpec) -> Iterator[Conflict]:
    """Path or dataset, one kind of prompt, and a format that can be that of the files."""
    if not spec.path and not spec.dataset:
        yield Conflict("", "needs a path (file, folder, glob or list) or a dataset")
    if spec.path and spec.dataset:
        yield Conflict("dataset", "stands beside path; give one of the two")
    if spec.dataset and spec.format != "auto":
        yield Conflict("format", "is for files; a dataset knows its own, so remove this line")
    for key in ("name", "split", "revision"):
        if getattr(spec, key) and not spec.dataset:
            yield Conflict(key, "belongs to dataset, and there is none; remove this line")
    yield from _prompt_conflicts(spec)
    yield from _path_conflicts(spec)


def sampling_problems(spec: SamplingSpec) -> Iterator[Conflict]:
    """Bounds that must not cross."""
    if spec.min_tokens > spec.max_tokens:
        yield Conflict(
            "min_tokens",
            f"{spec.min_tokens} is more than max_tokens, {spec.max_tokens}; raise max_tokens",
        )


def output_problems(spec: OutputSpec) -> Iterator[Conflict]:
    """A path whose ending says the same as the format."""
    path = spec.path.rstrip("/")
    if path.endswith(_JSONL[1:]):
        yield Conflict("path", "output is not compressed; write a name that ends in .jsonl")
    elif path.endswith(".jsonl") and spec.format == "parquet":
        yield Conflict(
            "path",
            "ends in .jsonl but format is parquet; add format: jsonl or format: openai-batch, "
            "or name a folder",
        )
    elif path.endswith(".parquet"):
        remedy = (
            "Parquet output is a folder of shards; name a folder such as out/"
            if spec.format == "parquet"
            else f"ends in .parquet but format is {spec.format}; name a .jsonl file or a folder"
        )
        yield Conflict("path", remedy)
    if spec.format == "openai-batch" and isinstance(spec.keep_columns, tuple):
        yield Conflict("keep_columns", "openai-batch lines hold no input columns; remove this line")


def machine_problems(spec: Machine) -> Iterator[Conflict]:
    """An emulated device is nothing without the size of its memory."""
    if spec.device == "emulated" and spec.gpu_memory is None:
        yield Conflict("", "an emulated device needs gpu_memory, such as 400MiB")


def job_problems(job: Job) -> Iterator[Conflict]:
    """An output that would be read as input by the next run."""
    if job.output.path.rstrip("/") in [path.rstrip("/") for path in job.input.path]:
        yield Conflict("output.path", "is the input as well; name another file or folder")


def _prompt_conflicts(spec: InputSpec) -> Iterator[Conflict]:
    given = [key for key in ("prompt", "messages", "template") if getattr(spec, key)]
    for key in given[1:]:
        yield Conflict(key, f"stands beside {given[0]}; give at most one of the two")
    if spec.format == "openai-batch":
        for key in (*given, "system", "id"):
            if getattr(spec, key) is not None:
                yield Conflict(key, "openai-batch lines bring their own; remove this line")
    if spec.chat is False:
        for key in ("messages", "system"):
            if getattr(spec, key) is not None:
                yield Conflict(key, "needs the chat template that chat: false switches off")


def _path_conflicts(spec: InputSpec) -> Iterator[Conflict]:
    if STDIN in spec.path and len(spec.path) > 1:
        yield Conflict("path", "- (standard input) cannot be read beside files")
    if STDIN in spec.path and spec.format == "parquet":
        yield Conflict("format", "standard input is read as JSON lines; write jsonl")
    for path in spec.path:
        is_parquet, is_lines = path.endswith(".parquet"), path.endswith(_JSONL)
        if (is_parquet and spec.format in ("jsonl", "openai-batch")) or (
            is_lines and spec.format == "parquet"
        ):
            yield Conflict("format", f"is {spec.format}, but the path is {path}; write auto")
            return
