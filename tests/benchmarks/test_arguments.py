"""The flags that every benchmark has, and what they refuse."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.arguments import benchmark_parser


def parse(*arguments: str) -> argparse.Namespace:
    parser = benchmark_parser("any", "Any.", peers=("a", "b"), runs=5)
    return parser.parse_args(arguments)


def test_without_flags_all_peers_run_five_times() -> None:
    told = parse()
    assert (told.peers, told.runs, told.seed, told.quick) == (("a", "b"), 5, 0, False)


def test_peers_are_named_with_commas_between_them() -> None:
    assert parse("--peers", "b, a").peers == ("b", "a")


def test_no_peer_at_all_can_be_asked_for() -> None:
    assert parse("--peers", "").peers == ()


def test_a_benchmark_without_peers_has_no_flag_for_them() -> None:
    told = benchmark_parser("any", "Any.", runs=1).parse_args(())
    assert not hasattr(told, "peers")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--peers", "a,c"), "no peer is called 'c'; there are a, b"),
        (("--runs", "0"), "'0' is not a whole number from 1 on"),
        (("--runs", "1.5"), "'1.5' is not a whole number from 1 on"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_can(
    flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*flags)
    assert said in capsys.readouterr().err
