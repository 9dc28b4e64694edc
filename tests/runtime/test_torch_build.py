"""Whether torch can use a GPU, read without importing it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tightrun.runtime.torch_build import cuda_version


@pytest.mark.parametrize(
    ("line", "expected"),
    [("cuda: Optional[str] = '13.0'", "13.0"), ('cuda = "12.8"', "12.8"), ("cuda = None", None)],
)
def test_the_version_is_read_from_its_file(tmp_path: Path, line: str, expected: str | None) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\nhip = '7.0'\n")
    assert cuda_version(tmp_path) == expected


def test_the_installed_one_is_read_right() -> None:
    assert cuda_version() == torch.version.cuda
