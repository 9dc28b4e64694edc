"""`${VAR}` and `${VAR:-default}` in the texts of a job file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tightrun.io.yaml12 import Interpolate, Interpolated

_REFERENCE = re.compile(r"(?P<escape>\$\$\{)|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)(API_?)?KEY(_|$)", re.IGNORECASE)


def interpolator(env: Mapping[str, str]) -> Interpolate:
    """A function that puts the variables of `env` into a text.

    `$${` stands for a literal `${`. A default is taken when the variable is unset or empty,
    as in a shell. The function raises ValueError for an unset variable without default.
    """

    def interpolate(text: str) -> Interpolated:
        variables: list[str] = []

        def put_in(match: re.Match[str]) -> str:
            if match["escape"]:
                return "${"
            body = _BODY.fullmatch(match["body"])
            if not body or not match["end"]:
                raise ValueError(
                    f"{match[0]!r} is no variable; write ${{NAME}}, or $${{ for a literal ${{"
                )
            name, default = body["name"], body["default"]
            if default is not None and not env.get(name):
                return default
            if name not in env:
                raise ValueError(
                    f"the environment variable {name} is not set; "
                    f"set it, or write ${{{name}:-default}}"
                )
            variables.append(name)
            return env[name]

        first = _REFERENCE.match(text)
        whole = first is not None and first.end() == len(text) and not first["escape"]
        return Interpolated(_REFERENCE.sub(put_in, text), tuple(variables), whole)

    return interpolate


def looks_secret(variable: str) -> bool:
    """Whether a variable's name says that its value must not be copied into files."""
    return _SECRET.search(variable) is not None


def escape(text: str) -> str:
    """The text that interpolates to `text`."""
    return text.replace("${", "$${")
