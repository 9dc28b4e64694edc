"""Calls over a network: tried again while the failure may pass, then told in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_MAY_PASS = frozenset({408, 425, 429})
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
# Libraries whose own errors are of the network; those of ours and of Python are not.
_OF_THE_NETWORK = frozenset(
    {"aiohttp", "botocore", "aiobotocore", "gcsfs", "google", "httpx", "httpx2", "requests"}
    | {"urllib3", "adlfs", "azure", "huggingface_hub"}
)

Result = TypeVar("Result")


class RemoteError(RuntimeError):
    """A store or a server did not do what was asked; nothing that was saved is lost by it."""


def patiently(call: Callable[[], Result], what: str) -> Result:
    """The result of `call`, tried again after 1, 2, 4, 8 and 16 s while its failure may pass.

    `what` says what was tried, for the error. Raises RemoteError when it was in vain; that there
    is no such file, or no permission, stays an OSError of its own.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except Exception as error:
            if not _of_the_network(error) or isinstance(error, _FINAL):
                raise
            cause = f"{what} failed ({type(error).__name__}: {' '.join(str(error).split())})"
            if not _may_pass(error):
                raise RemoteError(cause) from error
            if wait_s is None:
                tried = f"tried {1 + len(WAITS_S)} times in {sum(WAITS_S):.0f} s"
                remedy = "the same command goes on from there"
                raise RemoteError(f"{cause}; {tried}; {remedy}") from error
        time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _of_the_network(error: Exception) -> bool:
    root = type(error).__module__.partition(".")[0]
    return isinstance(error, (OSError, EOFError)) or root in _OF_THE_NETWORK


def _may_pass(error: Exception) -> bool:
    """False for what the other side has refused, and where there is nobody to ask."""
    if "Credentials" in type(error).__name__:
        return False
    response: Any = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None)
    refused = isinstance(status, int) and 400 <= status < 500
    return not refused or status in _MAY_PASS
