"""Prompt to tokens and tokens to text: one path for every kind of prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transformers import AutoTokenizer, GenerationConfig

from tightrun.core import Request, RowError, row_words
from tightrun.runtime.chat_text import ChatText
from tightrun.runtime.model import ModelRefusedError

Chat = Literal["auto"] | bool

# A template that says what templates are given.
_AS_JSON = "{{ messages | tojson }}"


class PromptError(ValueError):
    """A prompt that cannot become tokens; carries the row's error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = RowError(code, message)


class Tokenizer:
    """A Hugging Face tokenizer with the job's chat settings.

    `chat` "auto" uses the chat template if there is one; True demands one; False never uses it.
    """

    def __init__(
        self,
        path: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        chat: Chat = "auto",
        system: str | None = None,
    ) -> None:
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                path, revision=revision, trust_remote_code=trust_remote_code
            )
            # Some of what its files say is not looked at before the first text.
            self._tokenizer.encode("a")
        except Exception as error:  # files from anywhere make the library raise anything
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            raise ModelRefusedError(f"cannot load the tokenizer at {path}: {reason}") from error
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        if chat is True and not has_template:
            raise ModelRefusedError(
                f"input.chat is true, but the tokenizer at {path} has no chat template; "
                "set input.chat: false, or model.tokenizer to one that has"
            )
        self.chat = has_template if chat == "auto" else chat
        if system is not None and not self.chat:
            raise ModelRefusedError(
                f"input.system needs a chat template, and the tokenizer at {path} "
                + ("is not to use its own (input.chat: false)" if has_template else "has none")
            )
        self.has_template = has_template
        self._path = path
        self._chat_text = self._bounded_template() if has_template else None
        self._system = system

    @property
    def end_token(self) -> int | None:
        token: int | None = self._tokenizer.eos_token_id
        return token

    def encode(self, request: Request) -> list[int]:
        """The tokens of one prompt. Raises PromptError with the code of the row's error."""
        prompt = request.prompt
        if isinstance(prompt, str):
            if self.chat and not request.raw:
                return self._encode_chat([{"role": "user", "content": prompt}])
            return self._encode_text(prompt, special=True)
        if self._chat_text is None:
            raise PromptError(
                "bad_messages", f"a chat needs a chat template, and {self._path} has none"
            )
        return self._encode_chat(list(prompt))

    def _encode_text(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
        if not ids:
            raise PromptError("bad_row", "the prompt is empty: it has no token")
        return ids

    def _encode_chat(self, messages: list[Mapping[str, Any]]) -> list[int]:
        if self._system is not None and (not messages or messages[0].get("role") != "system"):
            messages = [{"role": "system", "content": self._system}, *messages]
        assert self._chat_text is not None
        try:
            text = self._chat_text.render(self._normalised(messages))
        except ValueError as error:
            raise PromptError("bad_messages", str(error)) from error
        return self._encode_text(text, special=False)

    def _bounded_template(self) -> ChatText | None:
        tokens: Mapping[str, Any] = self._tokenizer.special_tokens_map
        try:
            return ChatText(self._tokenizer.get_chat_template(), tokens)
        except ValueError as error:
            if not self.chat:
                return None
            raise ModelRefusedError(f"{self._path}: {error}; set input.chat: false") from error

    def _normalised(self, messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The messages as transformers hands them to a chat template; raises ValueError."""
        try:
            text = self._tokenizer.apply_chat_template(
                messages, chat_template=_AS_JSON, tokenize=False
            )
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"the messages are refused: {row_words(error)}") from error
        normalised: list[Mapping[str, Any]] = json.loads(text)
        return normalised

    def decode(self, tokens: list[int]) -> str:
        """Text of output tokens, special tokens left out."""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_text(self, token: int) -> str:
        """One token on its own, as it is reported beside its log-probability."""
        text: str = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text


def find_stop(
    tokenizer: Tokenizer, output: list[int], stop: tuple[str, ...], min_tokens: int = 0
) -> tuple[str, str] | None:
    """(text before the stop string, the stop string) if the last token of `output` completed one.

    Called after every token from `min_tokens` on; what was complete before that is no stop. Only a
    tail that must hold a match ending there is decoded, and a match is confirmed on the whole text.
    """
    longest = max(len(s.encode()) for s in stop)
    # Every token but a special one stands for a byte at least; a few more guard the tail's edge.
    tail = tokenizer.decode(output[-(longest + 8) :])
    if not any(s in tail for s in stop):
        return None
    text = tokenizer.decode(output)
    unsearched = len(tokenizer.decode(output[: min_tokens - 1])) if min_tokens > 1 else 0
    hits = [(at, s) for s in stop if (at := text.find(s, max(0, unsearched - len(s) + 1))) >= 0]
    if not hits:
        return None
    at, found = min(hits)
    return text[:at], found


def end_tokens(
    path: str, revision: str | None, tokenizer: Tokenizer, config: Any
) -> frozenset[int]:
    """End of sequence: the generation config's, else the model's, else the tokenizer's."""
    found: Any = None
    if not Path(path).is_dir() or (Path(path) / "generation_config.json").is_file():
        try:
            found = GenerationConfig.from_pretrained(path, revision=revision or "main").eos_token_id
        except OSError:
            found = None
    if found is None:
        found = getattr(config.get_text_config(decoder=True), "eos_token_id", None)
    if found is None:
        found = tokenizer.end_token
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])
