"""The device torch computes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tightrun.runtime.torch_device import choose_device, use_processors


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_auto_takes_what_there_is() -> None:
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert str(choose_device("auto")) == expected


def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="use hardware: cpu or auto"):
        choose_device("cuda:63")


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("processors", "threads"), [(1, 1), (2, 2), (8, 2)])
def test_no_more_threads_than_processors_and_no_more_than_before(
    processors: int, threads: int
) -> None:
    use_processors(processors)
    assert torch.get_num_threads() == threads
