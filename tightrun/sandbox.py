"""Jinja for templates and rows that nobody has vouched for: in a sandbox, and within bounds.

Jinja's own sandbox keeps a template from the world. This one also keeps it from going on for ever
and from filling the memory: every turn of a loop and every call is so many steps of so many that
there are, and what grows a text (a product, a concatenation, a padding) is refused before it has.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_CHARS = 64 << 20
MAX_STEPS = 1_000_000
MAX_POWER = 1_000
MAX_BITS = 1 << 17
# A step may be a long one: a sort of what is as large as a row may be.
MAX_S = 30.0

# No name of a template can be this one.
_BUDGET = "the budget"
_CALL_STEPS = 5
_WIDTH = re.compile(r"\d{6}|\*")


class TooMuchError(Exception):
    """A template wants more than it may have; the message follows "the template"."""


# What a template that does not compile may raise, and one that meets values it was not made for.
DOES_NOT_COMPILE = (TemplateError, SyntaxError, RecursionError, ValueError, OverflowError,
                    MemoryError)  # fmt: skip


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """A sandboxed environment; what it compiles is to be rendered by `render`."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals.pop("lipsum", None)
        self.globals |= {"dict": _Dict(), "namespace": _Namespace}
        self.filters |= {name: _careful(name) for name in _GROWING}
        self.filters |= {"counted": _counted, "within_bounds": within_bounds}

    def render(self, template: Template, values: Mapping[str, Any]) -> str:
        """The text of a template. Raises TooMuchError, and whatever the template raises."""
        budget = _Budget()
        pieces, size = [], 0
        given = {**values, "range": budget.range, _BUDGET: budget}
        for piece in template.generate(given):
            size += len(piece)
            budget.take(1)
            if size > MAX_CHARS:
                raise TooMuchError(f"makes over {MAX_CHARS >> 20} Mi characters here")
            pieces.append(piece)
        return "".join(pieces)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call is some steps, and so is each thing that a loop is called with."""
        budget = context.parent[_BUDGET]
        things = sum(len(arg) for arg in args if isinstance(arg, list | tuple | dict))
        budget.take(_CALL_STEPS + things)
        # The sandbox wraps `str.format`.
        method = getattr(called, "__wrapped__", called)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            refuse_growth(method.__name__, owner, args)
        return within_bounds(super().call(context, called, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator; raises TooMuchError for one out of all proportion."""
        for sequence, times in ((left, right), (right, left)):
            repeated = operator == "*" and isinstance(sequence, str | list | tuple)
            if repeated and isinstance(times, int) and len(sequence) * times > MAX_CHARS:
                raise TooMuchError(f"repeats a text {times:,} times here")
        if operator == "**" and isinstance(right, int) and right > MAX_POWER:
            raise TooMuchError(f"takes the power {right:,} here")
        if operator == "*" and isinstance(left, int) and isinstance(right, int):
            _refuse_digits(left, right)
        if operator == "%" and isinstance(left, str):
            refuse_growth("format", left, ())
        return within_bounds(super().call_binop(context, operator, left, right))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filtered(loop.iter, "counted")
        for block in list(tree.find_all(nodes.AssignBlock)):
            block.filter = _filtered(block.filter, "within_bounds")
        _bound_joins(tree)
        return tree


class _Dict:
    """What a template calls to make a mapping, and no class whose insides it could reach."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace that takes no name from the insides of Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a name may be "self"
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with _, as {name!r} does")


class _Budget:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self._left = MAX_STEPS
        self._until_s = time.monotonic() + MAX_S

    def take(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooMuchError(f"takes over {MAX_STEPS:,} steps here")
        if time.monotonic() > self._until_s:
            raise TooMuchError(f"takes over {MAX_S:.0f} s here")

    def range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        if numbers[-1:] and (numbers.stop - numbers.start) // numbers.step > MAX_STEPS:
            raise TooMuchError(f"takes over {MAX_STEPS:,} steps here")
        self.take(len(numbers))
        return numbers

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.take(1)
            yield item


@pass_context
def _counted(context: Context, items: Any) -> Any:
    """What a loop goes over; its turns are steps."""
    budget: _Budget = context.parent[_BUDGET]
    if isinstance(items, Sized):
        budget.take(len(items))
        return items
    return budget.each(items)


def within_bounds(value: Any) -> Any:
    """`value`; raises TooMuchError for a text or list that is too large to go on with."""
    if isinstance(value, str | list | tuple) and len(value) > MAX_CHARS:
        raise TooMuchError(f"makes over {MAX_CHARS >> 20} Mi characters here")
    return value


def refuse_growth(name: str, text: str, args: tuple[Any, ...]) -> None:
    """Raises TooMuchError if a text method of that name would make far more of `text`."""
    grown = len(text)
    if name in ("ljust", "rjust", "center", "zfill", "expandtabs", "indent"):
        widths = [arg for arg in args if isinstance(arg, int)]
        grown += max(widths, default=0) * (text.count("\n") + text.count("\t") + 1)
    elif name == "replace" and len(args) > 1:
        grown += text.count(str(args[0])) * len(str(args[1]))
    elif name == "join" and args and isinstance(args[0], Sized):
        grown *= len(args[0])
    elif name in ("format", "format_map") and _WIDTH.search(text):
        raise TooMuchError("formats with too wide a field here")
    if grown > MAX_CHARS:
        raise TooMuchError(f"makes over {MAX_CHARS >> 20} Mi characters here")


_GROWING = ("center", "indent", "replace", "format")


def _careful(name: str) -> Callable[..., Any]:
    """The filter of that name, of which the text is looked at first."""
    known = FILTERS[name]
    with_context = hasattr(known, "jinja_pass_arg")

    @pass_context
    def careful(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = str(value)
        refuse_growth(name, text, (*args, *kwargs.values()))
        first = (context.eval_ctx,) if with_context else ()
        return within_bounds(known(*first, value, *args, **kwargs))

    return careful


def _refuse_digits(left: int, right: int) -> None:
    bits = left.bit_length() + right.bit_length()
    if bits > MAX_BITS:
        raise TooMuchError("makes a number of too many digits here")


def _filtered(node: Any, name: str) -> nodes.Filter:
    at = node.lineno if node is not None else 1
    return nodes.Filter(node, name, [], [], None, None, lineno=at)


def _bound_joins(tree: nodes.Node) -> None:
    """Looks at what `~` has joined, wherever it stands."""
    for field, value in tree.iter_fields():
        if isinstance(value, list):
            setattr(tree, field, [_bounded(item) for item in value])
        else:
            setattr(tree, field, _bounded(value))


def _bounded(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _bound_joins(value)
    return _filtered(value, "within_bounds") if isinstance(value, nodes.Concat) else value
