"""The prompt template: strict, in a sandbox, and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from tightrun.io.input_types import BadRowError, InputError
from tightrun.io.template import PromptTemplate


def render(source: str, **row: Any) -> str:
    return PromptTemplate(source).render(row)


def failure(source: str, **row: Any) -> tuple[str, str]:
    with pytest.raises(BadRowError) as caught:
        render(source, **row)
    return caught.value.code, str(caught.value)


def test_columns_are_filled_in_and_the_text_around_them_is_exact() -> None:
    assert render("Q: {{ q }}\nA:\n", q="<why>") == "Q: <why>\nA:\n"


def test_structs_and_lists_are_reached_into() -> None:
    source = "{{ meta.lang }}{% for d in docs %} [{{ loop.index }}] {{ d }}{% endfor %}"
    assert render(source, meta={"lang": "de"}, docs=["a", "b"]) == "de [1] a [2] b"


@pytest.mark.parametrize("row", [{}, {"q": None}])
def test_a_missing_column_is_an_error_of_the_row(row: dict[str, Any]) -> None:
    code, message = failure("{{ q }}", **row)
    assert code == "missing_column"
    assert "'q'" in message


def test_a_missing_field_of_a_struct_is_an_error_of_the_row() -> None:
    assert failure("{{ meta.lang }}", meta={})[0] == "missing_column"


def test_an_if_may_look_at_a_column_that_is_not_there() -> None:
    source = "{{ q }}{% if more %} {{ more }}{% endif %}"
    assert render(source, q="a", more=None) == "a"
    assert render(source, q="a", more="b") == "a b"


def test_columns_with_a_default_are_optional() -> None:
    template = PromptTemplate(
        "{{ q }}{{ a | default('-') }}{% if b is defined %}{{ b }}{% endif %}"
    )
    assert template.names == {"q", "a", "b"}
    assert template.optional == {"a", "b"}
    assert template.render({"q": "x", "a": None}) == "x-"


def test_a_template_that_does_not_compile_stops_the_job_with_its_line() -> None:
    with pytest.raises(InputError, match=r"input\.template, line 2"):
        PromptTemplate("ok\n{{ q ")


@pytest.mark.parametrize(
    "source",
    [
        "{{ q.__class__.__mro__ }}",
        "{{ items.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ '-' * 10**12 }}",
        "{{ 9 ** 99999999 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{{ long }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_the_template_must_not_do_is_an_error_of_the_row(source: str) -> None:
    code, _ = failure(source, q="x", items=[1], long="x" * 100_000)
    assert code == "bad_row"
