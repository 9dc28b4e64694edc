"""Passes add up to a run."""

from __future__ import annotations

from tightrun.policies.cost import PassBound
from tightrun.runtime.accounts import Accounts, Traffic, peak_rss_bytes


def test_times_bounds_and_work_add_up() -> None:
    accounts = Accounts()
    accounts.add(100.0, PassBound(1.0, 1.5), 2.0, Traffic(computing_s=1.25))
    accounts.add(11.0, PassBound(1.0, 0.5), 2.0, Traffic(2.5, h2d_bytes=7))
    assert (accounts.passes, accounts.seconds, accounts.bound_s) == (2, 4.0, 2.5)
    assert (accounts.idle_s, accounts.h2d_bytes) == (0.75, 7)
    assert accounts.flops == 111.0


def test_what_set_most_of_the_bound_is_what_binds() -> None:
    accounts = Accounts()
    accounts.add(0.0, PassBound(1.0, 0.5), 5.0, Traffic())
    accounts.add(0.0, PassBound(0.5, 3.0), 5.0, Traffic())
    assert accounts.binding == "memory"


def test_a_run_without_a_pass_has_a_binding_too() -> None:
    assert Accounts().binding == "compute"


def test_the_peak_is_in_bytes() -> None:
    assert 10 * 2**20 < peak_rss_bytes() < 2**45


def test_traffic_since_is_what_has_come_about() -> None:
    now = Traffic(3.0, 2.0, h2d_bytes=10, kv_bytes_out=4)
    assert now.since(Traffic(1.0, 0.5, h2d_bytes=4)) == Traffic(
        2.0, 1.5, h2d_bytes=6, kv_bytes_out=4
    )
