"""One path from a prompt to tokens, and back to text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.runtime.engines import ask
from tightrun.core import Request
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.tokenizer import PromptError, Tokenizer, end_tokens

WORDS = ["<bos>", "<end>", "<unk>", "user:", "system:", "assistant:", "hi", "there", "be", "kind"]
BOS, END = 0, 1
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'wizard' %}{{ raise_exception('no such role') }}{% endif %}"
    "<bos> {{ m.role }}: {{ m.content }} "
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves a tokenizer of a few words, which begins plain text with <bos>."""

    def save(template: str | None = None) -> Path:
        fast = Fast(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
        fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", BOS)]
        )
        whole: Any = PreTrainedTokenizerFast
        made = whole(tokenizer_object=fast, bos_token="<bos>", eos_token="<end>")
        made.chat_template = template
        made.save_pretrained(tmp_path / "tokenizer")
        return tmp_path / "tokenizer"

    return save


def words(tokens: list[int]) -> str:
    return " ".join(WORDS[t] for t in tokens)


def chat(*messages: tuple[str, str]) -> Request:
    return ask(0, tuple({"role": role, "content": content} for role, content in messages))


def test_plain_text_gets_the_tokenizers_own_special_tokens(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved()))
    assert words(tokenizer.encode(ask(0, "hi there"))) == "<bos> hi there"


def test_with_a_template_a_prompt_is_a_message_of_the_user(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved(TEMPLATE)))
    # The template writes its own <bos>; a second one would be wrong.
    assert words(tokenizer.encode(ask(0, "hi there"))) == "<bos> user: hi there assistant:"


def test_the_system_prompt_comes_first(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved(TEMPLATE)), system="be kind")
    expected = "<bos> system: be kind <bos> user: hi assistant:"
    assert words(tokenizer.encode(ask(0, "hi"))) == expected
    assert words(tokenizer.encode(chat(("user", "hi")))) == expected


def test_a_chat_with_a_system_prompt_of_its_own_keeps_it(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved(TEMPLATE)), system="be kind")
    got = words(tokenizer.encode(chat(("system", "hi"), ("user", "there"))))
    assert got == "<bos> system: hi <bos> user: there assistant:"


def test_a_template_may_be_left_unused(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved(TEMPLATE)), chat=False)
    assert words(tokenizer.encode(ask(0, "hi"))) == "<bos> hi"


def test_raw_text_is_never_wrapped(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved(TEMPLATE)))
    assert words(tokenizer.encode(Request(0, "r", "hi", raw=True))) == "<bos> hi"


def test_a_chat_that_the_template_refuses_is_bad_messages(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved(TEMPLATE)))
    with pytest.raises(PromptError, match="role") as refused:
        tokenizer.encode(chat(("wizard", "hi")))
    assert refused.value.error.code == "bad_messages"


def test_a_chat_without_a_template_is_bad_messages(saved: Callable[..., Path]) -> None:
    with pytest.raises(PromptError, match="chat template") as refused:
        Tokenizer(str(saved())).encode(chat(("user", "hi")))
    assert refused.value.error.code == "bad_messages"


def test_a_prompt_without_any_token_is_a_bad_row(word_tokenizer: Path) -> None:
    with pytest.raises(PromptError, match="empty") as refused:
        Tokenizer(str(word_tokenizer)).encode(ask(0, ""))
    assert refused.value.error.code == "bad_row"


def test_asking_for_a_chat_without_a_template_is_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(ModelRefusedError, match=r"input\.chat is true"):
        Tokenizer(str(saved()), chat=True)


@pytest.mark.parametrize(
    ("template", "chat", "why"),
    [(None, "auto", "has none"), (TEMPLATE, False, r"input\.chat: false")],
)
def test_a_system_prompt_that_cannot_be_used_is_refused(
    template: str | None, chat: Any, why: str, saved: Callable[..., Path]
) -> None:
    with pytest.raises(ModelRefusedError, match=why):
        Tokenizer(str(saved(template)), chat=chat, system="be kind")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="cannot load the tokenizer"):
        Tokenizer(str(tmp_path))


def test_text_leaves_special_tokens_out(saved: Callable[..., Path]) -> None:
    tokenizer = Tokenizer(str(saved()))
    assert tokenizer.decode([BOS, 6, 7, END]) == "hi there"
    assert tokenizer.token_text(END) == "<end>"


# --- the end of a sequence ---------------------------------------------------------------------


def ends(folder: Path, tokenizer: Tokenizer, own: Any) -> frozenset[int]:
    text_config = SimpleNamespace(eos_token_id=own)
    config = SimpleNamespace(get_text_config=lambda **_: text_config)
    return end_tokens(str(folder), None, tokenizer, config)


def test_the_generation_config_says_what_ends_a_sequence(saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    assert ends(folder, Tokenizer(str(folder)), 5) == {3, 4}


def test_without_it_the_models_config_does(saved: Callable[..., Path]) -> None:
    folder = saved()
    assert ends(folder, Tokenizer(str(folder)), 5) == {5}


def test_without_both_the_tokenizer_does(saved: Callable[..., Path]) -> None:
    folder = saved()
    (folder / "generation_config.json").write_text(json.dumps({}))
    assert ends(folder, Tokenizer(str(folder)), None) == {END}
