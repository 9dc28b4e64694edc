"""Templates that nobody has vouched for: none hangs, none fills the memory, none gets out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from jinja2 import TemplateError

from tightrun.sandbox import DOES_NOT_COMPILE, BoundedSandbox, TooMuchError

DOUBLING = "{% set ns = namespace(x='x') %}{% for i in range(99) %}"


def rendered(source: str, **values: Any) -> str:
    environment = BoundedSandbox(extensions=["jinja2.ext.loopcontrols"])
    return environment.render(environment.from_string(source), values)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(0, -10**9, -1) %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in many %}{% for b in many %}{% endfor %}{% endfor %}",
        "{% for a in many %}{% for b in many if b == 7 %}{% endfor %}{% endfor %}",
        "{% for a in many %}{% for b in many|map('int') %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% for i in range(999) recursive %}{{ loop(many) }}{% endfor %}",
        "{{ cycler('a', 'b').next() * 10**12 }}",
        DOUBLING + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        DOUBLING + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        DOUBLING + "{% set ns.x = ns.x.replace('x', 'xxx') %}{% endfor %}",
        DOUBLING + "{% set ns.x = ns.x|replace('x', 'xxx') %}{% endfor %}",
        DOUBLING + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
        DOUBLING.replace("'x'", "7") + "{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ 9 ** 99999999 }}",
        "{{ 'x'.ljust(10**10) }}",
        "{{ 'x'|center(10**10) }}",
        "{{ 'x'|indent(10**10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10**10, 1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '%9999999999d'|format(1) }}",
        "{{ (long * 1000).join(long) }}",
        "{{ 'x' * 10**12 }}{{ many * 10**9 }}",
    ],
)
def test_what_would_take_for_ever_or_all_memory_is_refused(source: str) -> None:
    with pytest.raises((TooMuchError, RecursionError)):
        rendered(source, many=list(range(5_000)), long="x" * 100_000)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ f.__globals__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ '{0.__class__}'.format(f) }}",
        "{{ many.append(1) }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
        "{% include '/etc/passwd' %}",
        "{{ lipsum(n=10**9) }}",
    ],
)
def test_nothing_is_reached_outside(source: str) -> None:
    text = ""
    with suppress(TemplateError, TypeError):
        text = rendered(source, f=len, many=[1])
    assert text == ""


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for x in xs %}{{ loop.index }}/{{ loop.length }}{{ x }} {% endfor %}", "1/2a 2/2b "),
        ("{% for x in xs if x != 'a' %}{{ loop.last }}{{ x }}{% else %}-{% endfor %}", "Trueb"),
        ("{% for x in xs %}{% if loop.first %}{% continue %}{% endif %}{{ x }}{% endfor %}", "b"),
        ("{% for k, v in d.items() %}{{ k ~ '=' ~ v }};{% endfor %}", "a=1;b=2;"),
        ("{% set t | upper %}{{ xs[0] }}b{% endset %}{{ t }}", "AB"),
        ("{% set n = namespace(a=0) %}{% for x in xs %}{% set n.a=1 %}{% endfor %}{{ n.a }}", "1"),
        ("{% macro m(x) %}{{ x }}{{ caller() }}{% endmacro %}{% call m(1) %}c{% endcall %}", "1c"),
        ("{{ 'a-b'.replace('-', '+') ~ ('%05.1f' % 2) ~ 'x'.ljust(3) ~ '|' }}", "a+b002.0x  |"),
        ("{{ xs|join(', ') }} {{ 'a\nb'|indent(2) }} {{ 'x'|center(3) }}|", "a, b a\n  b  x |"),
        ("{{ dict(a=1).a }}{{ xs[::-1]|list }}{{ range(3)|sum }}", "1['b', 'a']3"),
        ("{% filter upper %}a{% endfilter %}{% for x in xs %}{% break %}{% endfor %}", "A"),
    ],
)  # fmt: skip
def test_what_templates_do_comes_out_as_jinja_has_it(source: str, text: str) -> None:
    assert rendered(source, xs=["a", "b"], d={"a": 1, "b": 2}) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ x ",
        "{% for %}",
        "{{ x|nosuch }}",
        "{% for i in x %}" * 40 + "{% endfor %}" * 40,
        "{{ " + "(" * 5_000 + "x" + ")" * 5_000 + " }}",
        "{{ " + "9" * 5_000 + " }}",
    ],
)
def test_what_does_not_compile_is_one_of_few_errors(source: str) -> None:
    with pytest.raises(DOES_NOT_COMPILE):
        rendered(source)
