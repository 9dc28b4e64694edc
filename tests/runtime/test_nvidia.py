"""Which GPUs CUDA will see, and what of their memory is free."""

from __future__ import annotations

import pytest

from tests.runtime.stand_in_nvml import (
    GIB,
    Device,
    NVMLError,
    NVMLError_DriverNotLoaded,
    NVMLError_LibraryNotFound,
    StandInNvml,
)
from tightrun.runtime.nvidia import CUDA_OWN_BYTES, gpu_memory, visible_gpus

FIRST = Device("GPU-aa11-22", 20 * GIB, can_be_cut_up=False)
SECOND = Device("GPU-aa33-44", 10 * GIB)
THIRD = Device("GPU-bb55-66", 5 * GIB)
SMALL = Device("MIG-c1-01", 9 * GIB, 10 * GIB)
OTHER = Device("MIG-c2-02", 4 * GIB, 5 * GIB)
CUT_UP = Device("GPU-cc77-88", 60 * GIB, name="NVIDIA A100", slots=(None, SMALL, OTHER))


def seen(asked: str | None, *cards: Device) -> list[str]:
    """UUIDs of what CUDA sees of `cards` with CUDA_VISIBLE_DEVICES as asked."""
    nvml = StandInNvml(*cards)
    environment = {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked}
    found = [gpu.uuid for gpu in visible_gpus(environment, nvml)]
    assert nvml.open == 0
    return found


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 2 , 0 ", [2, 0]),
        ("-1", []),
        ("0,-1,2", [0]),
        ("0,7,2", [0]),
        ("1,1", []),
        ("NoDevFiles", []),
        ("GPU-aa33-44", [1]),
        ("GPU-bb", [2]),
        ("GPU-aa", []),
        ("GPU-bb,0", [2, 0]),
        ("GPU-zz,0", []),
        ("2,GPU-bb", []),
    ],
)
def test_the_variable_chooses_and_orders(asked: str | None, numbers: list[int]) -> None:
    cards = (FIRST, SECOND, THIRD)
    assert seen(asked, *cards) == [cards[number].uuid for number in numbers]


@pytest.mark.parametrize("asked", [None, "0", "GPU-cc77", "MIG-c1-01", "MIG-c1", "MIG-c1,MIG-c2"])
def test_of_a_card_that_is_cut_up_the_first_instance_is_used(asked: str | None) -> None:
    assert seen(asked, CUT_UP) == [SMALL.uuid]


def test_an_instance_is_chosen_by_its_uuid() -> None:
    assert seen("MIG-c2-02", FIRST, CUT_UP) == [OTHER.uuid]


def test_a_card_that_is_cut_up_into_nothing_is_not_there() -> None:
    assert seen(None, Device("GPU-dd", 9, slots=(None, None)), FIRST) == [FIRST.uuid]


def test_cards_that_a_job_may_not_open_are_not_counted() -> None:
    forbidden = Device("GPU-ee", 9 * GIB, is_forbidden=True)
    assert seen("0", forbidden, SECOND) == [SECOND.uuid]


@pytest.mark.parametrize("error", [NVMLError_LibraryNotFound(), NVMLError_DriverNotLoaded()])
def test_without_a_driver_there_is_no_gpu(error: NVMLError) -> None:
    assert visible_gpus({}, StandInNvml(FIRST, fails=error)) == []


def test_a_driver_that_does_not_answer_is_an_error() -> None:
    nvml = StandInNvml(FIRST, fails=NVMLError("Driver/library version mismatch"))
    with pytest.raises(ValueError, match="version mismatch; repair it, or use hardware: cpu"):
        visible_gpus({}, nvml)


def test_what_is_free_counts_less_what_cuda_itself_takes() -> None:
    budget = gpu_memory(1, {"CUDA_VISIBLE_DEVICES": "0,1"}, StandInNvml(FIRST, SECOND))
    assert budget is not None
    assert (budget.bytes, budget.limit) == (10 * GIB - CUDA_OWN_BYTES, "free GPU memory")


def test_an_instance_has_its_own_memory() -> None:
    budget = gpu_memory(0, {}, StandInNvml(CUT_UP))
    assert budget is not None
    assert budget.bytes == 9 * GIB - CUDA_OWN_BYTES
    assert budget.limit == "free GPU memory of the MIG instance"


@pytest.mark.parametrize(("order", "is_sure"), [("PCI_BUS_ID", True), ("FASTEST_FIRST", False)])
def test_which_of_unlike_cards_is_meant_is_sure_by_bus_only(order: str, is_sure: bool) -> None:
    other = Device("GPU-ff", 8 * GIB, name="Quadro P400")
    budget = gpu_memory(0, {"CUDA_DEVICE_ORDER": order}, StandInNvml(FIRST, other))
    assert budget is not None
    assert ("CUDA_DEVICE_ORDER" not in budget.limit) == is_sure


def test_memory_shared_with_the_host_is_not_told() -> None:
    assert gpu_memory(0, {}, StandInNvml(Device("GPU-gb10", None))) is None


def test_a_gpu_that_is_hidden_is_an_error_that_says_why() -> None:
    with pytest.raises(ValueError, match=r"sees 1 GPUs \(CUDA_VISIBLE_DEVICES=1\)"):
        gpu_memory(1, {"CUDA_VISIBLE_DEVICES": "1"}, StandInNvml(FIRST, SECOND))


def test_no_gpu_at_all_is_an_error_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="NVIDIA_DRIVER_CAPABILITIES"):
        gpu_memory(0, {}, StandInNvml())
