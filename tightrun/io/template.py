"""The job's prompt template: Jinja over the columns of a row, in a sandbox and within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, nodes
from jinja2.meta import find_undeclared_variables

from tightrun.core import row_words
from tightrun.io.input_types import BadRowError, InputError
from tightrun.sandbox import DOES_NOT_COMPILE, BoundedSandbox, TooMuchError


class PromptTemplate:
    """A compiled template over columns; raises InputError if it does not compile.

    `names` are the columns it reads; `optional` those that may be missing from the whole input,
    because the template gives them a default or asks whether they are defined. A null counts as
    missing. In a row, a column may be missing that is optional or that an `if` looks at.
    """

    def __init__(self, source: str) -> None:
        environment = BoundedSandbox(
            undefined=_Missing, keep_trailing_newline=True, autoescape=False
        )
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise InputError(f"input.template, line {error.lineno}: {error.message}") from None
        except DOES_NOT_COMPILE as error:
            raise InputError(f"input.template does not compile: {error}") from None
        self._environment = environment
        self.names = frozenset(find_undeclared_variables(tree)) - set(environment.globals)
        self.optional = frozenset(_asked_about(tree)) & self.names
        self._required = sorted(self.names - self.optional - set(_looked_at(tree)))

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt of a row; raises BadRowError with `missing_column` or `bad_row`."""
        for name in self._required:
            if row.get(name) is None:
                what = "null" if name in row else "missing"
                raise BadRowError("missing_column", f"the template needs {name!r}, {what} here")
        values = {name: row[name] for name in self.names if row.get(name) is not None}
        try:
            return self._environment.render(self._template, values)
        except TooMuchError as error:
            raise BadRowError("bad_row", f"the template {error}") from None
        except UndefinedError as error:
            raise BadRowError("missing_column", f"the template: {row_words(error)}") from None
        except RecursionError:
            raise BadRowError("bad_row", "the template never comes to an end") from None
        except Exception as error:  # the row's values meet the person's expressions: any type
            why = f"{type(error).__name__}: {row_words(error)}"
            raise BadRowError("bad_row", f"the template fails on this row: {why}") from None


class _Missing(StrictUndefined):
    """A column this row lacks: false in an `if`, an error wherever its text is wanted."""

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


def _asked_about(tree: nodes.Template) -> Iterator[str]:
    tests = (node for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined"))
    defaults = (node for node in tree.find_all(nodes.Filter) if node.name in ("default", "d"))
    for node in (*tests, *defaults):
        if isinstance(node.node, nodes.Name):
            yield node.node.name


def _looked_at(tree: nodes.Template) -> Iterator[str]:
    tests = [node.test for node in tree.find_all(nodes.If)]
    tests += [node.test for node in tree.find_all(nodes.CondExpr)]
    for test in tests:
        yield from (name.name for name in test.find_all(nodes.Name))
        if isinstance(test, nodes.Name):
            yield test.name
