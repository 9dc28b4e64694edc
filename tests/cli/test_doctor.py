"""What `tightrun doctor` finds, and which limit set each figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrun.cli.doctor import Finding, devices, disk, memory


def by_name(findings: object) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}  # type: ignore[attr-defined]


def test_memory_comes_with_the_limit_that_won_and_all_others() -> None:
    found = by_name(memory())["memory"]
    least = min(found.value["found"], key=lambda limit: limit["bytes"])
    assert least["limit"] in found.value["limit"]
    assert all(limit["limit"] in found.text for limit in found.value["found"])


def test_lockable_memory_is_told() -> None:
    assert "lockable" in by_name(memory())


def test_processors_come_with_their_limit() -> None:
    found = by_name(devices())["cpu"]
    assert found.value["limit"] in found.text


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no tmpfs at /dev/shm")
def test_a_cache_in_memory_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/shm/not-made")
    found = by_name(disk())["cache"]
    assert found.value["in_memory"]
    assert "takes host memory" in found.text
