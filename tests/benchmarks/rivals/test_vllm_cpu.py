"""vLLM is set up as its manual asks, with every core for its worker; it need not be installed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.rivals.vllm_cpu import preloads, settle


def settled(environment: dict[str, str], *, in_process: bool = False) -> dict[str, str]:
    settle(argparse.Namespace(threads="nobind", in_process=in_process), environment)
    return environment


def test_the_openmp_library_of_its_environment_is_preloaded(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "libiomp5.so"
    assert str(library) not in list(preloads(tmp_path))
    library.parent.mkdir()
    library.touch()
    assert str(library) in list(preloads(tmp_path))


def test_what_was_preloaded_already_stays() -> None:
    assert settled({"LD_PRELOAD": "mine.so"})["LD_PRELOAD"].split(":")[0] == "mine.so"


def test_no_core_is_kept_from_the_worker() -> None:
    assert settled({})["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize(("in_process", "flag"), [(True, "0"), (False, "1")])
def test_scheduler_and_worker_share_a_process_or_do_not(in_process: bool, flag: str) -> None:
    assert settled({}, in_process=in_process)["VLLM_ENABLE_V1_MULTIPROCESSING"] == flag
