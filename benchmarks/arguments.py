"""The flags that every benchmark has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def benchmark_parser(
    name: str, description: str, *, peers: Sequence[str] = (), runs: int
) -> argparse.ArgumentParser:
    """A parser with --quick, --runs, --seed and --peers; `peers` are all that can be named, and
    without any there is no such flag."""

    def chosen(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        unknown = [peer for peer in names if peer not in peers]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no peer is called {unknown[0]!r}; there are {', '.join(peers)}"
            )
        return names

    def at_least_one(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
        return int(text)

    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument(
        "--runs", type=at_least_one, default=runs, metavar="N", help=f"rounds (default {runs})"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of everything random (default 0)"
    )
    if peers:
        parser.add_argument(
            "--peers",
            type=chosen,
            default=tuple(peers),
            metavar="A,B",
            help=f"compare with these only (default {','.join(peers)})",
        )
    return parser
