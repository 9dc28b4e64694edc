"""A chat template renders as in transformers, unless it is made to do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.runtime.engines import ask
from tightrun.core import Request
from tightrun.runtime.chat_text import ChatText
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.tokenizer import PromptError, Tokenizer

CHAT = (
    {"role": "system", "content": "Be “kind” <b>"},
    {"role": "user", "content": "hi \n there {{ x }}"},
    {"role": "assistant", "content": "yes", "reasoning_content": "why not"},
    {"role": "user", "content": ""},
)
TEMPLATES = {
    "chatml": (
        "{%- for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' + m['content'] }}\n"
        "    {%- if m.reasoning_content is defined %}<think>{{ m.thinking }}</think>{% endif %}\n"
        "    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "namespace": (
        "{% set ns = namespace(n=0, system='') %}{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.system = m.content | trim %}{% continue %}{% endif %}"
        "{% set ns.n = ns.n + 1 %}{% if loop.last %}{{ ns.system }}{% endif %}"
        "{{ ns.n }}{{ m | tojson }}{{ m.content.split(' ')[-1] | upper }}{% endfor %}"
        "{{ eos_token }}"
    ),
    "generation": (
        "{% set t = 'a' %}{% for m in messages if m.role != 'system' %}{% generation %}"
        "{% set t = 'b' %}{{ t ~ m.content }}{% endgeneration %}{{ t }}{% endfor %}"
        "{{ tools is none }}{{ documents is none }}{{ strftime_now('%Y') }}{{ dict(a=1) | tojson }}"
    ),
}
HOSTILE = {
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{{ 'x' * 10**12 }}",
    "code": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "division": "{{ 1 / 0 }}",
}


def save(folder: Path, template: str) -> Path:
    words = {"<unk>": 0, "<bos>": 1, "<end>": 2}
    fast = Fast(models.WordLevel(words, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole: Any = PreTrainedTokenizerFast
    made = whole(tokenizer_object=fast, bos_token="<bos>", eos_token="<end>")
    made.chat_template = template
    made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_in_transformers(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "tokenizer", TEMPLATES[name])
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        list(CHAT), tokenize=False, add_generation_prompt=True
    )
    texts: list[str] = []
    render = ChatText.render

    def keep(chat: ChatText, messages: Any) -> str:
        texts.append(render(chat, messages))
        return "hi"

    monkeypatch.setattr(ChatText, "render", keep)
    Tokenizer(str(folder)).encode(Request(0, "r", CHAT))
    assert texts == [expected]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_does_harm_is_an_error_of_the_row(tmp_path: Path, name: str) -> None:
    tokenizer = Tokenizer(str(save(tmp_path / "tokenizer", HOSTILE[name])))
    with pytest.raises(PromptError) as refused:
        tokenizer.encode(ask(0, "hi"))
    assert refused.value.error.code == "bad_messages"


def test_what_a_template_says_of_a_row_is_not_for_logs(tmp_path: Path) -> None:
    folder = save(tmp_path / "tokenizer", "{{ raise_exception('no: ' + messages[0].content) }}")
    with pytest.raises(PromptError) as refused:
        Tokenizer(str(folder)).encode(ask(0, "my secret"))
    assert "my secret" in refused.value.error.message
    assert "my secret" not in refused.value.error.for_logs


def test_a_template_that_does_not_compile_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = save(tmp_path / "tokenizer", "{% for m in messages %}")
    with pytest.raises(ModelRefusedError, match=r"does not compile.*input\.chat: false"):
        Tokenizer(str(folder))
    assert Tokenizer(str(folder), chat=False).encode(ask(0, "<bos>")) == [1]
