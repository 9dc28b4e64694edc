"""How much memory may be used, and which limit said so."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from tightrun.runtime import limits
from tightrun.runtime.limits import cgroup_free, choose_device, detect_hardware, host_budget

GIB = 2**30


def cgroup(folder: Path, limit: int | str, used: int, cache: int | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    if cache is not None:
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\nactive_file 7\n")


def free(tmp_path: Path, own: str = "0::/a/b") -> int | None:
    (tmp_path / "self").write_text(f"{own}\n")
    return cgroup_free(tmp_path / "cgroup", tmp_path / "self")


def test_the_tightest_ancestor_counts(tmp_path: Path) -> None:
    cgroup(tmp_path / "cgroup/a", 10 * GIB, 9 * GIB)
    cgroup(tmp_path / "cgroup/a/b", 8 * GIB, 2 * GIB)
    assert free(tmp_path) == GIB


def test_a_group_without_a_limit_does_not_count(tmp_path: Path) -> None:
    cgroup(tmp_path / "cgroup/a", 10 * GIB, 9 * GIB)
    cgroup(tmp_path / "cgroup/a/b", "max", 9 * GIB)
    assert free(tmp_path) == GIB


def test_files_that_can_be_read_again_are_not_in_the_way(tmp_path: Path) -> None:
    cgroup(tmp_path / "cgroup/a/b", 10 * GIB, 9 * GIB, cache=6 * GIB)
    assert free(tmp_path) == 7 * GIB


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    cgroup(tmp_path / "cgroup/a/b", GIB, 2 * GIB)
    assert free(tmp_path) == 0


@pytest.mark.parametrize("own", ["1:memory:/a", "0::/elsewhere", ""])
def test_without_any_limit_there_is_none(tmp_path: Path, own: str) -> None:
    cgroup(tmp_path / "cgroup/a/b", GIB, 0)
    assert free(tmp_path, own) is None


def test_without_cgroups_there_is_none(tmp_path: Path) -> None:
    assert cgroup_free(tmp_path, tmp_path / "missing") is None


def available(monkeypatch: pytest.MonkeyPatch, machine: int, group: int | None) -> int:
    """Sets what machine and cgroup have free; returns what this process holds."""
    memory = psutil.virtual_memory()._replace(available=machine)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(limits, "cgroup_free", lambda: group)
    return int(psutil.Process().memory_info().rss)


def test_a_share_is_of_what_is_free_and_of_what_is_held_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = available(monkeypatch, 10 * GIB, None)
    budget = host_budget(0.5)
    assert budget.bytes == pytest.approx((10 * GIB + own) / 2, rel=0.05)
    assert budget.limit == "limits.cpu_memory (50% of available memory)"


def test_the_cgroup_counts_where_it_is_tighter(monkeypatch: pytest.MonkeyPatch) -> None:
    own = available(monkeypatch, 10 * GIB, 4 * GIB)
    budget = host_budget(1.0)
    assert budget.bytes == pytest.approx(4 * GIB + own, rel=0.05)
    assert "memory.max" in budget.limit


def test_bytes_that_were_asked_for_are_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, 10 * GIB, None)
    budget = host_budget(3 * GIB)
    assert (budget.bytes, budget.limit) == (3 * GIB, "limits.cpu_memory")


def test_more_than_there_is_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    own = available(monkeypatch, 2 * GIB, None)
    budget = host_budget(100 * GIB)
    assert budget.bytes == pytest.approx(2 * GIB + own, rel=0.05)
    assert budget.limit == "available memory"


def test_on_a_cpu_both_memories_are_one() -> None:
    hardware = detect_hardware(torch.device("cpu"), 0.1, 0.5)
    assert hardware.device_memory == hardware.host_memory
    assert hardware.cores >= 1


def test_auto_takes_what_there_is() -> None:
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert str(choose_device("auto")) == expected


def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="use hardware: cpu or auto"):
        choose_device("cuda:63")
