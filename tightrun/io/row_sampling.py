"""The sampling of one row: the job's, with what the row itself asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from pydantic import ValidationError

from tightrun.core import SamplingParams, row_words
from tightrun.io.columns import did_you_mean
from tightrun.io.input_types import BadRowError
from tightrun.io.job_sections import SamplingSpec
from tightrun.io.jsonl import json_kind

_KEYS = tuple(SamplingSpec.model_fields)


class RowSampling:
    """Merges what a row asks for over the job's sampling."""

    def __init__(self, spec: SamplingSpec) -> None:
        self.default = spec.params()
        self._spec = dict(spec)

    def override(self, given: Any, logprobs: int | None = None) -> SamplingParams:
        """The sampling with `given` over it: a mapping, JSON text of one, or None.

        A key that is null counts as not given. `logprobs` is in the engine's terms: 0 reports
        the chosen token. Raises BadRowError with `bad_sampling`.
        """
        asked = {key: value for key, value in _mapping(given).items() if value is not None}
        if not asked and logprobs is None:
            return self.default
        for key in asked:
            if key not in _KEYS:
                raise _bad(
                    f"unknown sampling parameter {row_words(key, 60)}{did_you_mean(key, _KEYS)}"
                )
        try:
            params = SamplingSpec.model_validate({**self._spec, **asked}).params()
        except ValidationError as error:
            raise _bad(_first_problem(error)) from None
        if params.n > self.default.n:
            raise _bad(
                f"n: {params.n} samples are more than the job's {self.default.n}; "
                f"set sampling.n to {params.n} or more"
            )
        return params if logprobs is None else replace(params, logprobs=logprobs)


def _mapping(given: Any) -> Mapping[str, Any]:
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            raise _bad(f"sampling_params is text, but not JSON: {error}") from None
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _bad(f"sampling_params must be an object or JSON of one, not {json_kind(given)}")
    return given


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    key = str(first["loc"][0]) + ": " if first["loc"] else ""
    got = (
        ""
        if isinstance(first["input"], Mapping) or not key
        else f", not {row_words(first['input'], 40)}"
    )
    return f"{key}{first['msg'].removeprefix('Value error, ')}{got}"


def _bad(why: str) -> BadRowError:
    return BadRowError("bad_sampling", why)
