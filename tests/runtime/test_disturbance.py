"""What others take of the processors while something is measured."""

from __future__ import annotations

import pytest

from tightrun.runtime.disturbance import taken_by_others


def test_others_have_taken_what_was_busy_and_not_our_own() -> None:
    assert taken_by_others(all_s=15.0, own_s=12.0, passed_s=10.0, cores=2) == pytest.approx(0.15)
    assert taken_by_others(all_s=11.9, own_s=12.0, passed_s=10.0, cores=2) == 0.0
