"""Which columns make the prompt and the id."""

from __future__ import annotations

import pytest

from tightrun.io.columns import choose_id, choose_kept, choose_prompt
from tightrun.io.input_types import InputError
from tightrun.io.job_sections import InputSpec, OutputSpec


def spec(**fields: str) -> InputSpec:
    return InputSpec.model_validate({"path": "x.jsonl", **fields})


@pytest.mark.parametrize(
    ("names", "form", "columns"),
    [
        (["id", "messages"], "chat", ("messages",)),
        (["conversations", "score"], "chat", ("conversations",)),
        (["prompt", "answer"], "text", ("prompt",)),
        (["text"], "text", ("text",)),
        (["question", "input"], "text", ("question",)),
        (["instruction", "output"], "text", ("instruction",)),
        (["input", "instruction", "output"], "text", ("instruction", "input")),
    ],
)
def test_the_prompt_is_found_by_its_name(
    names: list[str], form: str, columns: tuple[str, ...]
) -> None:
    chosen = choose_prompt(spec(), names)
    assert (chosen.form, chosen.columns) == (form, columns)


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["text", "question"], "input.prompt: text"),
        (["prompt", "messages"], "input.messages: messages"),
        (["messages", "conversations"], "input.messages: messages"),
        (["instruction", "input", "text"], "input.prompt: text"),
    ],
)
def test_two_columns_that_could_be_the_prompt_are_refused(names: list[str], remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_prompt(spec(), names)
    assert remedy in str(caught.value)
    assert all(name in str(caught.value) for name in names if name != "input")


def test_chats_need_the_chat_template() -> None:
    with pytest.raises(InputError, match=r"'messages' holds chats.*input.chat: false"):
        choose_prompt(InputSpec(path=("x.jsonl",), chat=False), ["messages"])


def test_without_a_candidate_the_columns_are_listed() -> None:
    with pytest.raises(InputError, match=r"set input.prompt.*; there are body, title"):
        choose_prompt(spec(), ["body", "title"])


@pytest.mark.parametrize("key", ["prompt", "messages"])
def test_a_named_column_that_is_not_there_has_a_suggestion(key: str) -> None:
    with pytest.raises(InputError, match=rf"input\.{key}: .*'qestion'.*did you mean 'question'"):
        choose_prompt(spec(**{key: "qestion"}), ["id", "question"])


def test_a_named_column_may_stand_beside_other_candidates() -> None:
    assert choose_prompt(spec(prompt="text"), ["text", "question"]).columns == ("text",)


def test_a_template_needs_its_columns_but_not_those_with_a_default() -> None:
    template = "{{ q }}{{ hint | default('') }}"
    assert choose_prompt(spec(template=template), ["q"]).columns == ("hint", "q")
    with pytest.raises(InputError, match=r"input\.template: no column 'q'"):
        choose_prompt(spec(template=template), ["hint"])


def test_a_named_id_must_be_there_and_is_required_of_every_row() -> None:
    assert choose_id(spec(id="key"), ["key"]).required
    with pytest.raises(InputError, match=r"input\.id: no column 'kee'.*did you mean 'key'"):
        choose_id(spec(id="kee"), ["key"])


def test_the_id_is_looked_for_under_the_usual_names() -> None:
    assert choose_id(spec(), ["uid", "id"]).columns == ("custom_id", "id", "uid")


def test_kept_columns_are_in_the_inputs_order() -> None:
    out = OutputSpec(path="out", keep_columns=("b", "a"))
    assert choose_kept(out, ["a", "x", "b"]) == ("a", "b")
    with pytest.raises(InputError, match=r"output\.keep_columns: no column 'b'"):
        choose_kept(out, ["a"])


def test_none_keeps_no_column_not_even_one_named_on() -> None:
    assert choose_kept(OutputSpec(path="out", keep_columns="none"), ["on", "none"]) == ()
