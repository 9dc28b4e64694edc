"""YAML with the scalars of YAML 1.2, every value with its line and column.

PyYAML scans and parses; what its events mean is decided here, because its own loaders
read `no` as false, `1e-4` as text and `12:00:00` as a number, keep the last of two equal
keys without a word, and forget where a value stood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import yaml

from tightrun.io.places import KeyPath, Origin, Origins, Place, Problem

MAX_DEPTH = 64
MAX_VALUES = 200_000

_NULL = frozenset(["", "~", "null", "Null", "NULL"])
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,4000}")
_OCTAL = re.compile(r"0o[0-7]{1,4000}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_CORE = "tag:yaml.org,2002:"


class Interpolated(NamedTuple):
    """A text with its variables put in; `whole` when it was one variable and nothing else."""

    text: str
    variables: tuple[str, ...] = ()
    whole: bool = False


Interpolate = Callable[[str], Interpolated]


class Tree(NamedTuple):
    """A document: plain values, where each came from, and what was wrong on the way."""

    value: Any
    origins: Origins
    problems: list[Problem]


class YamlError(ValueError):
    """The text is no YAML document at all; `problem` says where and what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def parse_yaml(text: str, source: str, *, interpolate: Interpolate | None = None) -> Tree:
    """Read one document. An empty one is None.

    Duplicate keys, tags outside the core schema, and texts that `interpolate` refuses (with
    ValueError) are collected as problems; raises YamlError when no document can be read.
    """
    try:
        root = _Composer(text, source).document()
    except yaml.YAMLError as error:
        raise YamlError(_syntax_problem(error, text, source)) from None
    builder = _Builder(interpolate)
    value = builder.build(root, (), root.place)
    return Tree(value, builder.origins, builder.problems)


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in the core schema of YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float("nan") if _NAN.fullmatch(text) else text


@dataclass(slots=True, eq=False)
class _Node:
    place: Place
    tag: str | None


@dataclass(slots=True, eq=False)
class _Scalar(_Node):
    text: str
    plain: bool


@dataclass(slots=True, eq=False)
class _Sequence(_Node):
    items: list[_Node] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Mapping(_Node):
    pairs: list[tuple[_Node, _Node]] = field(default_factory=list)


class _Composer:
    """Events to nodes, with aliases followed; nothing is interpreted yet."""

    def __init__(self, text: str, source: str) -> None:
        self.events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.anchors: dict[str, _Node | None] = {}
        self.source = source

    def document(self) -> _Node:
        next(self.events)
        root: _Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self.fail(event, "a second document begins here; one file is one job")
                root = self.node(next(self.events), 0)
                next(self.events)
        return root or _Scalar(Place(self.source, 1, 1), None, "", True)

    def node(self, event: yaml.Event, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            self.fail(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            name = event.anchor or ""
            target = self.anchors.get(name)
            if target is None:
                what = "refers to itself" if name in self.anchors else "is not defined"
                hint = "a text that begins with * needs quotes"
                self.fail(event, f"the alias *{name} {what}; {hint}")
            return target
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor:
            self.anchors[event.anchor] = None
        node = self.collection_or_scalar(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def collection_or_scalar(self, event: yaml.NodeEvent, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return _Scalar(self.place(event), event.tag, event.value, event.style is None)
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = _Sequence(self.place(event), event.tag)
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                sequence.items.append(self.node(item, depth + 1))
            return sequence
        assert isinstance(event, yaml.MappingStartEvent)
        mapping = _Mapping(self.place(event), event.tag)
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            key_node = self.node(key, depth + 1)
            mapping.pairs.append((key_node, self.node(next(self.events), depth + 1)))
        return mapping

    def fail(self, event: yaml.Event, message: str) -> NoReturn:
        raise YamlError(Problem(self.place(event), (), message))

    def place(self, event: yaml.Event) -> Place:
        assert event.start_mark is not None, "the parser marks every event"
        return _place(self.source, event.start_mark)


class _Builder:
    """Nodes to plain values; remembers origins and collects problems."""

    def __init__(self, interpolate: Interpolate | None) -> None:
        self.interpolate = interpolate
        self.origins = Origins()
        self.problems: list[Problem] = []
        self.built = 0

    def report(self, node: _Node, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(node.place, path, message))

    def build(self, node: _Node, path: KeyPath, key: Place) -> Any:
        self.count(node)
        if len(path) > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            raise YamlError(Problem(node.place, (), message))
        self.origins.known[path] = Origin(key, node.place)
        if isinstance(node, _Scalar):
            return self.scalar(node, path, key)
        kind = "seq" if isinstance(node, _Sequence) else "map"
        if node.tag not in (None, "!", _CORE + kind):
            self.report(node, path, f"the tag {_shown_tag(node.tag)} is not supported; remove it")
        if isinstance(node, _Sequence):
            return [
                self.build(item, (*path, index), item.place)
                for index, item in enumerate(node.items)
            ]
        assert isinstance(node, _Mapping)
        return self.mapping(node, path)

    def scalar(self, node: _Scalar, path: KeyPath, key: Place) -> Any:
        value = self.tagged(node, path)
        if self.interpolate is None or not isinstance(value, str) or "$" not in value:
            return value
        try:
            done = self.interpolate(value)
        except ValueError as error:
            self.report(node, path, str(error))
            return value
        if done.variables:
            self.origins.known[path] = Origin(key, node.place, done.variables, value)
        # Quotes do not make it a text: inside { } a variable cannot do without them.
        return resolve_scalar(done.text) if done.whole and node.tag is None else done.text

    def tagged(self, node: _Scalar, path: KeyPath) -> Any:
        if node.tag is None:
            return resolve_scalar(node.text) if node.plain else node.text
        if node.tag in ("!", _CORE + "str"):
            return node.text
        if node.tag in [_CORE + kind for kind in ("int", "float", "bool", "null")]:
            return resolve_scalar(node.text)
        self.report(node, path, f"the tag {_shown_tag(node.tag)} is not supported; remove it")
        return node.text

    def mapping(self, node: _Mapping, path: KeyPath) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        own = [pair for pair in node.pairs if not _is_merge(pair[0])]
        for key_node, value_node in own:
            key = self.key(key_node, path)
            if key is not None and key in values:
                first = self.origins.known[(*path, key)].key
                self.report(key_node, (*path, key), f"given twice; first at {first}")
            elif key is not None:
                values[key] = self.build(value_node, (*path, key), key_node.place)
        for key_node, value_node in self.merged(node, path):
            key = self.key(key_node, path)
            if key is not None and key not in values:
                values[key] = self.build(value_node, (*path, key), key_node.place)
        return values

    def merged(self, node: _Mapping, path: KeyPath) -> Iterator[tuple[_Node, _Node]]:
        """The pairs that `<<` brings in, nearest first."""
        for key, value in node.pairs:
            if not _is_merge(key):
                continue
            for source in value.items if isinstance(value, _Sequence) else [value]:
                self.count(source)
                if not isinstance(source, _Mapping):
                    self.report(source, (*path, "<<"), "merges a mapping only, as in <<: *name")
                    continue
                yield from (pair for pair in source.pairs if not _is_merge(pair[0]))
                yield from self.merged(source, path)

    def count(self, node: _Node) -> None:
        # Aliases multiply: ten lines can name a billion values, so count what they come to.
        self.built += 1
        if self.built > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values once its aliases are followed"
            raise YamlError(Problem(node.place, (), message))

    def key(self, node: _Node, path: KeyPath) -> str | int | None:
        key = self.tagged(node, path) if isinstance(node, _Scalar) else None
        if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
            return key
        hint = "" if isinstance(node, _Scalar) else "; a text with {{ }} needs quotes"
        self.report(node, path, f"a key must be a word or a whole number{hint}")
        return None


def _is_merge(node: _Node) -> bool:
    return isinstance(node, _Scalar) and node.plain and node.text == "<<" and node.tag is None


def _place(source: str, mark: Any) -> Place:
    return Place(source, mark.line + 1, mark.column + 1)


def _shown_tag(tag: str | None) -> str:
    return (tag or "").replace(_CORE, "!!")


def _syntax_problem(error: yaml.YAMLError, text: str, source: str) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        position = error.position if isinstance(error.position, int) else 0
        before = text[:position]
        line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
        what = f"the character {ord(text[position : position + 1] or ' '):#x} cannot be in YAML"
        return Problem(Place(source, line, column), (), f"{what}; is this a job file?")
    assert isinstance(error, yaml.MarkedYAMLError)
    mark = error.problem_mark or error.context_mark
    said = error.problem or error.context or "cannot be read"
    place = _place(source, mark) if mark else Place(source)
    before = text[: mark.index] if mark else ""
    return Problem(place, (), f"not valid YAML: {said}{_syntax_hint(said, before)}")


def _syntax_hint(said: str, before: str) -> str:
    if before.endswith("$"):
        return "; inside { } or [ ] a ${VAR} needs quotes"
    if "'\\t'" in said:
        return "; a tab stands where spaces are meant"
    if "mapping values are not allowed" in said:
        return "; a text that holds ': ' needs quotes"
    if "alphabetic or numeric character" in said:
        return "; a text that begins with * or & needs quotes"
    if "cannot start any token" in said:
        return "; a text that begins with @ % ` or the like needs quotes"
    return ""
