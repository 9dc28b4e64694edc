"""The library is built once, whole, by whoever comes first, and its absence is explained."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.runtime.kernels.paged_case import PagedCase, Shape
from tightrun.runtime.kernels.build import KernelsUnavailableError, build
from tightrun.runtime.kernels.cpu import CpuKernels


def compiler_that(tmp_path: Path, runs: str) -> str:
    """A script that answers --version and, asked to compile, runs `runs` with the target in $t."""
    script = tmp_path / "c++"
    script.write_text(f"#!/bin/sh\n[ $# = 1 ] && exit\nfor t; do :; done\n{runs}\n")
    script.chmod(0o755)
    return str(script)


def test_no_compiler_is_said_once_and_gives_none(tmp_path):
    said: list[str] = []
    assert CpuKernels.load(tmp_path, said.append, compiler="no-such-compiler") is None
    assert len(said) == 1
    assert "no-such-compiler" in said[0]


def test_a_compiler_that_fails_is_quoted(tmp_path):
    broken = compiler_that(tmp_path, "echo cannot compute >&2; exit 1")
    with pytest.raises(KernelsUnavailableError, match="cannot compute"):
        build(tmp_path / "cache", broken)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(KernelsUnavailableError, match=str(occupied)):
        build(occupied, compiler_that(tmp_path, "echo built > $t"))


def test_something_that_is_no_library_is_not_used(tmp_path):
    said: list[str] = []
    compiler = compiler_that(tmp_path, "echo built > $t")
    assert CpuKernels.load(tmp_path / "cache", said.append, compiler) is None
    assert "cannot be loaded" in said[0]


def test_builders_that_race_all_get_a_whole_library(tmp_path):
    slow = compiler_that(tmp_path, "sleep 0.3; echo built > $t")
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: build(cache, slow), range(4)))
    assert list(cache.iterdir()) == list(paths)
    assert paths.pop().read_bytes().startswith(b"built")


def test_a_library_is_built_once(tmp_path):
    counting = compiler_that(tmp_path, "echo built > $t; echo >> $0.runs")
    for _ in range(3):
        build(tmp_path / "cache", counting)
    assert (tmp_path / "c++.runs").read_text() == "\n"


def test_a_library_cut_short_is_built_again(tmp_path):
    compiler = compiler_that(tmp_path, "echo built > $t")
    path = build(tmp_path / "cache", compiler)
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    build(tmp_path / "cache", compiler)
    assert path.read_bytes() == whole


def test_flags_the_compiler_does_not_know_are_left_out(tmp_path):
    plain = compiler_that(tmp_path, 'case "$*" in *=native*) exit 1;; esac; echo built > $t')
    assert build(tmp_path / "cache", plain).exists()


def test_the_kernels_run_on_torchs_own_threads(kernels):
    torch.randn(512, 512) @ torch.randn(512, 512)
    case = PagedCase.make(kernels, Shape(), [(0, 300), (50, 1)])

    def threads():
        return len(list(Path("/proc/self/task").iterdir()))

    (torch.randn(1 << 20) + 1).sum()
    before = threads()
    case.attend(kernels)
    assert threads() == before
