"""Where a value of a job file stands and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

KeyPath = tuple[str | int, ...]
"""The way from the top of a document to a value: keys of mappings, indices of lists."""


@dataclass(frozen=True, slots=True)
class Place:
    """A spot a person can go to: a file with line and column (from 1), or a flag."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        numbers = (self.line, self.column)
        return ":".join([self.source, *(str(number) for number in numbers if number is not None)])


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from.

    `key` and `value` are the places of its key and of the value itself. `variables` are the
    environment variables that were put into it, and `written` the text that named them.
    """

    key: Place
    value: Place
    variables: tuple[str, ...] = ()
    written: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it is wrong, and what would be right."""

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        name = dotted(self.path)
        return f"{self.place}: {name}: {self.message}" if name else f"{self.place}: {self.message}"


@dataclass(slots=True)
class Origins:
    """The origins of all values of a document, by path. The root must be among them."""

    known: dict[KeyPath, Origin] = field(default_factory=dict)

    def find(self, path: KeyPath) -> Origin:
        """The origin of a value, or of the closest value that holds it."""
        while path not in self.known:
            assert path, "a document has an origin for its root"
            path = path[:-1]
        return self.known[path]

    def place(self, path: KeyPath, *, of_key: bool = False) -> Place:
        """Where to point for `path`: at its key, or at its value."""
        origin = self.find(path)
        return origin.key if of_key and path in self.known else origin.value

    def forget(self, path: KeyPath) -> None:
        """Drop what is known of a value that is about to be replaced, and of all below it."""
        for known in [known for known in self.known if known[: len(path)] == path]:
            del self.known[known]

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self.known)


def dotted(path: KeyPath) -> str:
    """`("input", "path", 0)` as `input.path[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
