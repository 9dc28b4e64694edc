"""Lines of an OpenAI batch file as requests.

A body's field is used, known to change nothing here, or refused: what would change the output
and cannot be done is never left out in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tightrun.core import Request, row_words
from tightrun.io.input_types import BadRowError
from tightrun.io.job_model import Job
from tightrun.io.jsonl import json_kind
from tightrun.io.messages import read_messages
from tightrun.io.prompts import Row, text_in
from tightrun.io.row_ids import id_text
from tightrun.io.row_sampling import RowSampling

CHAT_URL, TEXT_URL = "/v1/chat/completions", "/v1/completions"
LINE_KEYS = ("custom_id", "method", "url", "body")

_SAMPLING = (
    *("temperature", "top_p", "n", "seed", "stop", "presence_penalty", "frequency_penalty"),
    *("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids"),
)
_TOKENS = ("max_completion_tokens", "max_tokens")
_LOGPROBS = ("logprobs", "top_logprobs")
_WITHOUT_EFFECT = (
    *("model", "user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "stream_options", "parallel_tool_calls"),
)
# Fields that are refused unless they ask for what is done anyway.
_HARMLESS_AS = {
    "stream": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
}


def looks_like_batch(row: Row) -> bool:
    """Whether a line has all that makes it a line of a batch file."""
    return all(key in row for key in LINE_KEYS) and isinstance(row["body"], Mapping)


class BatchLineReader:
    """Batch lines; the `models` their bodies name are noted, up to four of them."""

    def __init__(self, job: Job) -> None:
        self._sampling = RowSampling(job.sampling)
        self.models: list[str] = []

    def id_of(self, row: Row) -> str:
        """See `RowReader`."""
        name = row.get("custom_id")
        if name is None or name == "":
            raise BadRowError("bad_row", "the line has no custom_id; each line needs its own")
        return id_text(name, "custom_id")

    def note_model(self, row: Row) -> None:
        """Remembers the model the line names, for one warning about all of them."""
        body = row.get("body")
        model = body.get("model") if isinstance(body, Mapping) else None
        if isinstance(model, str) and len(self.models) < 4 and model not in self.models:
            self.models.append(model)

    def request(self, row: Row, row_index: int, name: str) -> Request:
        """See `RowReader`."""
        chat = self._is_chat(row)
        body = row.get("body")
        if not isinstance(body, Mapping):
            raise BadRowError("bad_row", f"body must be an object, not {json_kind(body)}")
        fields = {key: value for key, value in body.items() if value is not None}
        _refuse_unsupported(fields, "messages" if chat else "prompt")
        sampling = self._sampling.override(_asked(fields), _logprobs(fields, chat))
        if chat:
            if "messages" not in fields:
                raise BadRowError("missing_column", "body has no messages")
            return Request(row_index, name, read_messages(fields["messages"]), sampling)
        return Request(row_index, name, _prompt(fields), sampling, raw=True)

    def _is_chat(self, row: Row) -> bool:
        method, url = row.get("method"), row.get("url")
        if method != "POST":
            raise BadRowError("unsupported", f"method must be POST, not {row_words(method, 40)}")
        path = url.rstrip("/") if isinstance(url, str) else url
        if path not in (CHAT_URL, TEXT_URL):
            known = f"{CHAT_URL} and {TEXT_URL}"
            raise BadRowError(
                "unsupported", f"url {row_words(url, 80)} is not served, only {known}"
            )
        return bool(path == CHAT_URL)


def other_models(models: list[str], ours: str) -> str | None:
    """A warning about models the lines name that are not `ours`; None if there are none."""
    others = [name for name in models if name != ours and not ours.endswith("/" + name)]
    if not others:
        return None
    names = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
    return f"the lines name the model {names}; all rows are answered by {ours}"


def _refuse_unsupported(fields: Mapping[str, Any], prompt_key: str) -> None:
    known = {*_SAMPLING, *_TOKENS, *_LOGPROBS, *_WITHOUT_EFFECT, prompt_key}
    for key, value in fields.items():
        if key in known or any(value == harmless for harmless in _HARMLESS_AS.get(key, ())):
            continue
        if key == "stream":
            raise BadRowError("unsupported", "stream: true makes no sense in a batch; remove it")
        what = "is no field of this url" if key in ("messages", "prompt") else "is not supported"
        raise BadRowError("unsupported", f"body.{_name(key)} {what}; remove it from the line")


def _asked(fields: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: fields[key] for key in _SAMPLING if key in fields}
    limits = [fields[key] for key in _TOKENS if key in fields]
    if limits:
        asked["max_tokens"] = limits[0]
    if asked.get("top_k") == -1:
        asked["top_k"] = 0
    return asked


def _logprobs(fields: Mapping[str, Any], chat: bool) -> int | None:
    """In the engine's terms: alternatives per token, 0 for the chosen token alone, None for off."""
    wanted = fields.get("logprobs")
    if not chat:
        return None if wanted is None else _alternatives("logprobs", wanted)
    if wanted is not None and not isinstance(wanted, bool):
        raise BadRowError(
            "bad_sampling", f"logprobs must be true or false, not {row_words(wanted, 40)}"
        )
    top = fields.get("top_logprobs")
    if top and not wanted:
        raise BadRowError("bad_sampling", "top_logprobs needs logprobs: true")
    return _alternatives("top_logprobs", top or 0) if wanted else None


def _alternatives(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 20:
        raise BadRowError(
            "bad_sampling", f"{key} must be a number from 0 to 20, not {row_words(value, 40)}"
        )
    return value


def _prompt(fields: Mapping[str, Any]) -> str:
    prompt = fields.get("prompt")
    if prompt is None:
        raise BadRowError("missing_column", "body has no prompt")
    if isinstance(prompt, list) and len(prompt) > 1 and isinstance(prompt[0], str):
        raise BadRowError("unsupported", "body.prompt holds several texts; give each its own line")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], str):
        raise BadRowError("unsupported", "body.prompt holds token ids; give the text")
    return text_in(prompt[0] if isinstance(prompt, list) and prompt else prompt, "body.prompt")


def _name(key: str) -> str:
    """The name of a field, which is no text of the row unless it is more than a name."""
    return f"{key:.60}" if key.isidentifier() else row_words(key, 60)
