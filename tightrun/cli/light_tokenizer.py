"""How many tokens a prompt has, from tokenizer.json alone: neither torch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from tightrun.core import Request
from tightrun.io.job import Job

if TYPE_CHECKING:
    from tightrun.runtime.chat_text import ChatText

TOKENIZER = "tokenizer.json"
# Characters of a prompt that are counted one by one.
LONGEST = 1 << 16
CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"


class NoTokenizerError(ValueError):
    """Tokens cannot be counted here; the message says why."""


class LightTokenizer:
    """The tokenizer of a job's model with the job's chat settings.

    `notes` say what cannot be counted as a run will have it. Raises NoTokenizerError where there
    is no tokenizer.json, or none that can be read.
    """

    def __init__(self, job: Job) -> None:
        folder = tokenizer_folder(job)
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises nothing narrower
            raise NoTokenizerError(f"{folder / TOKENIZER} cannot be read: {error}") from error
        # A tokenizer may be saved with the lengths it was trained for.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._chat: ChatText | None = None
        self._system = job.input.system
        self.notes: tuple[str, ...] = ()
        try:
            self._chat = None if job.input.chat is False else _chat(folder)
        except ValueError as error:
            self.notes = (f"{error}; what it adds to a prompt is not counted",)

    def counts(self, requests: Sequence[Request]) -> list[int | None]:
        """Tokens of each prompt, with all that a chat template adds; None for one it refuses.

        Of a very long prompt the beginning is counted, and the rest taken to be like it.
        """
        texts = [self._text(request) for request in requests]
        found: list[int | None] = [None] * len(texts)
        for special in (True, False):
            rows = [(i, text[0]) for i, text in enumerate(texts) if text and text[1] is special]
            encoded = self._tokenizer.encode_batch_fast(
                [text[:LONGEST] for _, text in rows], add_special_tokens=special
            )
            for (i, text), tokens in zip(rows, encoded, strict=True):
                found[i] = round(len(tokens) * max(1.0, len(text) / LONGEST))
        return found

    def _text(self, request: Request) -> tuple[str, bool] | None:
        """The whole text, and whether the tokenizer adds its own special tokens to it."""
        prompt = request.prompt
        if self._chat is None or (request.raw and isinstance(prompt, str)):
            if isinstance(prompt, str):
                return prompt, True
            return "\n".join(str(message["content"]) for message in prompt), True
        messages: list[Mapping[str, Any]] = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        )
        if self._system is not None and messages[0].get("role") != "system":
            messages = [{"role": "system", "content": self._system}, *messages]
        try:
            return self._chat.render(messages), False
        except ValueError:
            return None


def _config(path: Path) -> Mapping[str, Any]:
    """What stands in a tokenizer's config, nothing if there is none. Raises ValueError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no JSON object")
    return config


def tokenizer_folder(job: Job) -> Path:
    """The folder that holds the model's tokenizer.json; a hub model's is downloaded if need be.

    Raises NoTokenizerError if there is none.
    """
    name = job.model.tokenizer or job.model.path
    folder = Path(name)
    if folder.is_dir():
        if not (folder / TOKENIZER).is_file():
            raise NoTokenizerError(f"there is no {TOKENIZER} in {folder}")
        return folder
    return _downloaded(name, None if job.model.tokenizer else job.model.revision)


def _downloaded(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        path = Path(hf_hub_download(name, TOKENIZER, revision=revision))
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise NoTokenizerError(f"{name} has no {TOKENIZER} to be had: {reason}") from error
    for optional in (CONFIG, TEMPLATE):
        try:
            hf_hub_download(name, optional, revision=revision)
        except (HfHubHTTPError, EntryNotFoundError, OSError):
            continue
    return path.parent


def _chat(folder: Path) -> ChatText | None:
    """The chat template; None where there is none. Raises ValueError if it does not work here."""
    config = _config(folder / CONFIG)
    apart = folder / TEMPLATE
    if not apart.is_file() and not config.get("chat_template"):
        return None
    # Jinja takes a tenth of a second to import.
    from tightrun.runtime.chat_text import ChatText, template_in

    template = apart.read_text(encoding="utf-8") if apart.is_file() else template_in(config)
    return None if template is None else ChatText(template, config)
