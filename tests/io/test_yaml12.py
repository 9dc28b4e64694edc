"""YAML 1.2 scalars, places, and documents that mean harm."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrun.io.interpolation import escape, interpolator
from tightrun.io.yaml12 import Tree, YamlError, parse_yaml


def read(text: str, **env: str) -> Tree:
    return parse_yaml(text, "f.yaml", interpolate=interpolator(env))


def problems(text: str, **env: str) -> list[str]:
    return [str(problem) for problem in read(text, **env).problems]


def refusal(text: str) -> str:
    with pytest.raises(YamlError) as error:
        read(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "on", "yes", "off", "Y", "N", "nULL", "tRUE")],
        *[("true", True), ("True", True), ("FALSE", False)],
        *[("null", None), ("~", None), ("", None)],
        *[("1e-4", 1e-4), ("1E3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-2", -2), ("+3", 3)],
        *[("0o17", 15), ("017", 17), ("0x1F", 31), ("0b11", "0b11")],
        *[("1_000", "1_000"), ("12:30:00", "12:30:00"), ("2024-01-01", "2024-01-01")],
        *[(".inf", math.inf), ("-.INF", -math.inf), ("=", "="), ("90%", "90%")],
        *[("'1'", "1"), ('"no"', "no"), ("!!str 1", "1"), ("!!int '1'", 1)],
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    result = read(f"key: {text}\n").value["key"]
    assert (result, type(result)) == (value, type(value))


def test_not_a_number_is_one() -> None:
    assert math.isnan(read(".nan").value)


def test_every_value_has_the_place_of_its_key_and_of_itself() -> None:
    tree = read("a:\n  b: 1\n  c: [x, {d: 2}]\n")
    places = {path: (str(o.key), str(o.value)) for path, o in tree.origins.known.items()}
    assert places[("a", "b")] == ("f.yaml:2:3", "f.yaml:2:6")
    assert places[("a", "c", 1, "d")] == ("f.yaml:3:11", "f.yaml:3:14")


def test_a_key_given_twice_is_told_with_both_places() -> None:
    assert problems("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n") == [
        "f.yaml:4:3: b.c: given twice; first at f.yaml:3:3",
        "f.yaml:5:1: a: given twice; first at f.yaml:1:1",
    ]


def test_equal_keys_in_different_spelling_are_twice_the_same() -> None:
    assert problems("{10: a, 0xA: b}") == ["f.yaml:1:9: [10]: given twice; first at f.yaml:1:2"]


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 1}\nmore: &m {y: 2, z: 2}\nall: {<<: [*b, *m], x: 0}\n"
    assert read(text).value["all"] == {"x": 0, "y": 1, "z": 2}


def test_merges_of_merges_work() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}\n"
    assert read(text).value["c"] == {"x": 1, "y": 2}


def test_merging_something_else_is_a_problem() -> None:
    assert problems("a: {<<: 3}") == ["f.yaml:1:9: a.<<: merges a mapping only, as in <<: *name"]


def test_a_quoted_merge_key_is_just_a_key() -> None:
    assert read("{'<<': 3}").value == {"<<": 3}


def test_a_billion_laughs_stop_early() -> None:
    lines = ["l0: &l0 [a, b]"]
    lines += [f"l{i}: &l{i} [" + ", ".join([f"*l{i - 1}"] * 10) + "]" for i in range(1, 10)]
    message = refusal("\n".join(lines))
    assert "more than 200,000 values once its aliases are followed" in message


def test_a_billion_laughs_by_merging_stop_early() -> None:
    lines = ["l0: &l0 {a: 1}"]
    merges = (", ".join([f"*l{i - 1}"] * 10) for i in range(1, 10))
    lines += [f"l{i}: &l{i} {{<<: [{merge}]}}" for i, merge in enumerate(merges, start=1)]
    assert "more than 200,000 values" in refusal("\n".join(lines))


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000 + "x"])
def test_depth_is_bounded(text: str) -> None:
    assert "nested deeper than 64 levels" in refusal(text)


def test_depth_made_of_aliases_is_bounded() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [[[*a{i - 1}]]]" for i in range(1, 40)]
    assert "nested deeper than 64 levels" in refusal("\n".join(lines))


def test_an_alias_to_itself_is_refused() -> None:
    assert refusal("a: &a [*a]") == (
        "f.yaml:1:8: the alias *a refers to itself; a text that begins with * needs quotes"
    )


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("path: *.parquet", "f.yaml:1:8", "a text that begins with * or & needs quotes"),
        ("path: *x", "f.yaml:1:7", "not defined; a text that begins with * needs quotes"),
        ("a: b: c", "f.yaml:1:5", "a text that holds ': ' needs quotes"),
        ("a:\n\tb: 1", "f.yaml:2:1", "a tab stands where spaces are meant"),
        ("a: @b", "f.yaml:1:4", "needs quotes"),
        ("a: {b: ${C}}", "f.yaml:1:9", "inside { } or [ ] a ${VAR} needs quotes"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1", "a second document begins here; one file is one job"),
        ("a: [1, 2", "f.yaml:1:9", "not valid YAML"),
        ("a: 1\nb: \x00", "f.yaml:2:4", "the character 0x0 cannot be in YAML"),
    ],
)
def test_what_is_not_yaml_is_refused_where_it_stands(text: str, place: str, hint: str) -> None:
    message = refusal(text)
    assert message.startswith(place + ": ")
    assert hint in message


def test_a_leading_document_mark_is_no_second_document() -> None:
    assert read("---\na: 1\n...\n").value == {"a": 1}


def test_an_empty_document_is_none() -> None:
    assert read("# nothing\n").value is None


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['x']", "!mine {}", "!!binary aGk=", "!!set {}"]
)
def test_tags_beyond_the_core_are_refused(text: str) -> None:
    assert "is not supported; remove it" in problems(f"a: {text}")[0]


@pytest.mark.parametrize("key", ["{{ question }}: x", "? [a]\n: x", "true: x", "1.5: x", "~: x"])
def test_a_key_is_a_word_or_a_whole_number(key: str) -> None:
    assert "a key must be a word or a whole number" in problems(key)[0]


def test_an_unquoted_template_is_told_to_be_quoted() -> None:
    assert problems("t: {{ q }}")[0].endswith("a text with {{ }} needs quotes")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a-${X}-b", "a-7-b"),
        ("${X}", 7),
        ("'${X}'", 7),
        ('{v: "${X}"}', {"v": 7}),
        ("!!str ${X}", "7"),
        ("${X}${X}", "77"),
        ("${NONE:-2.5}", 2.5),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", None),
        ("${NONE:-}", None),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${X}", "${X}"),
        ("$$${X}", "$${X}"),
        ("$X and $", "$X and $"),
        ("$${a ${X}", "${a 7"),
    ],
)
def test_variables_are_put_into_texts(text: str, value: object) -> None:
    result = read(f"k: {text}", X="7", EMPTY="").value["k"]
    assert (result, type(result)) == (value, type(value))


def test_a_variable_brings_no_structure() -> None:
    assert read("k: ${X}", X="{a: 1}").value == {"k": "{a: 1}"}


def test_a_variable_s_own_dollar_signs_are_left_alone() -> None:
    assert read("k: ${X}", X="${Y}").value == {"k": "${Y}"}


def test_keys_and_comments_are_left_alone() -> None:
    assert read("'${X}': 1 # ${Y}").value == {"${X}": 1}


def test_an_unset_variable_is_a_problem_at_its_place() -> None:
    assert problems("a:\n  b: x${NOPE}") == [
        "f.yaml:2:6: a.b: the environment variable NOPE is not set; "
        "set it, or write ${NOPE:-default}"
    ]


@pytest.mark.parametrize("text", ["${}", "${a b}", "${A:=x}", "${A", "${1A}"])
def test_what_is_no_variable_says_how_to_write_one(text: str) -> None:
    assert "write ${NAME}, or $${ for a literal ${" in problems(f"k: '{text}'", A="x")[0]


def test_the_origin_knows_the_variables_and_what_was_written() -> None:
    origin = read("k: a${X}${Y:-d}", X="1").origins.known[("k",)]
    assert (origin.variables, origin.written) == (("X",), "a${X}${Y:-d}")


@settings(deadline=None)
@given(st.text())
def test_an_escaped_text_is_itself(text: str) -> None:
    assert interpolator({})(escape(text)).text == text


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}&*#!|>'\"%@`?,~0 \n\t<$\\", max_size=60))
def test_any_text_is_a_document_or_a_yaml_error(text: str) -> None:
    with suppress(YamlError):
        assert () in read(text).origins.known
