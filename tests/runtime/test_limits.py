"""What a job finds on a machine, and what on one that it describes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime import recorded_systems as systems
from tests.runtime.recorded_systems import GIB, MIB
from tests.runtime.stand_in_nvml import Device, StandInNvml
from tightrun.policies.hardware import Budget, Hardware
from tightrun.runtime import limits
from tightrun.runtime.limits import device_budget, find_hardware, in_pieces
from tightrun.runtime.machines import hardware_of, torch_device_of
from tightrun.runtime.nvidia import CUDA_OWN_BYTES
from tightrun.runtime.options import EngineOptions, Machine
from tightrun.runtime.system import System

CARD = Device("GPU-1", 20 * GIB)
FREE = 20 * GIB - CUDA_OWN_BYTES
HELD = 100 * MIB


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A container with 3 GiB left, half a processor's time, a GPU and a torch that can use it."""
    return made(tmp_path, CARD)


def made(root: Path, *cards: Device) -> System:
    nvml = StandInNvml(*cards)
    allowed = frozenset(range(8))
    return System(systems.docker_v1(root), {}, lambda _: (-1, -1), lambda: allowed, lambda: nvml)


@pytest.fixture
def _cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cuda_version", lambda: "13.0")


@pytest.fixture
def _cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cuda_version", lambda: None)


def test_on_a_cpu_both_memories_are_one(system: System) -> None:
    found = find_hardware("cpu", 0.9, 0.5, system=system)
    assert found.device_memory == found.host_memory
    assert (found.device, found.cores) == ("cpu", 1)
    assert found.host_memory.bytes == (3 * GIB + HELD) // 2


@pytest.mark.usefixtures("_cuda_build")
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_gpu_has_what_is_free(system: System, device: str) -> None:
    found = find_hardware(device, 0.5, 1.0, system=system)
    assert found.device == "cuda:0"
    assert found.device_memory == in_pieces(
        Budget(FREE // 2, "limits.gpu_memory (50% of free GPU memory)")
    )


@pytest.mark.usefixtures("_cpu_build")
def test_a_gpu_that_torch_cannot_use_does_not_count(system: System) -> None:
    assert find_hardware("auto", 0.5, 1.0, system=system).device == "cpu"
    with pytest.raises(ValueError, match="CUDA build of torch"):
        find_hardware("cuda", 0.5, 1.0, system=system)


@pytest.mark.usefixtures("_cuda_build")
def test_auto_without_a_gpu_is_the_cpu(tmp_path: Path) -> None:
    assert find_hardware("auto", 0.5, 1.0, system=made(tmp_path)).device == "cpu"


def test_memory_the_driver_does_not_tell_must_be_given_in_bytes(tmp_path: Path) -> None:
    system = made(tmp_path, Device("GPU-1", None))
    assert device_budget("cuda:0", 4 * GIB, system).bytes == 4 * GIB
    with pytest.raises(ValueError, match="gpu_memory: 20GiB"):
        device_budget("cuda:0", 0.9, system)


def test_an_emulated_device_is_what_it_is_said_to_be(system: System) -> None:
    machine = Machine("emulated", gpu_memory=8 * GIB, cpu_memory=9 * GIB)
    assert find_hardware("cpu", 7 * GIB, 8 * GIB, machine, system=system) == Hardware(
        "emulated",
        Budget(7 * GIB, "hardware.gpu_memory"),
        Budget(8 * GIB, "hardware.cpu_memory"),
        cores=1,
    )


def test_beside_an_emulated_device_lies_the_memory_that_is_found(system: System) -> None:
    found = find_hardware("cpu", GIB, 1.0, Machine("emulated", gpu_memory=GIB), system=system)
    assert found.host_memory.bytes == 3 * GIB + HELD


@pytest.mark.parametrize("device", ["emulated", "cuda"])
def test_a_device_that_is_only_described_needs_a_size(system: System, device: str) -> None:
    with pytest.raises(ValueError, match="needs gpu_memory"):
        find_hardware("cpu", 0.9, 0.8, Machine(device), here=False, system=system)


@pytest.mark.usefixtures("_cuda_build")
def test_a_machine_that_is_here_promises_no_more_than_is_found(system: System) -> None:
    machine = Machine("cuda", gpu_memory=40 * GIB, cpu_memory=2 * GIB)
    found = find_hardware("cuda", 40 * GIB, 2 * GIB, machine, system=system)
    assert found.device_memory == in_pieces(Budget(FREE, "free GPU memory"))
    assert found.host_memory == Budget(2 * GIB, "hardware.cpu_memory")


def test_a_cpu_that_is_described_has_one_memory(system: System) -> None:
    found = find_hardware("cpu", 0.9, GIB, Machine("cpu", cpu_memory=GIB), system=system)
    assert found.device_memory == found.host_memory == Budget(GIB, "hardware.cpu_memory")


@pytest.mark.usefixtures("_cpu_build")
def test_a_machine_that_is_elsewhere_is_taken_at_its_word(system: System) -> None:
    machine = Machine("cuda", gpu_memory=40 * GIB, cpu_memory=512 * GIB)
    found = find_hardware("cuda", 40 * GIB, 400 * GIB, machine, here=False, system=system)
    assert (found.device, found.device_memory.bytes) == ("cuda:0", 40 * GIB)
    assert found.host_memory.bytes == 400 * GIB


def test_a_run_finds_what_a_plan_finds() -> None:
    options = EngineOptions("model", device="cpu", cpu_memory=64 * MIB)
    planned = find_hardware("cpu", options.gpu_memory, options.cpu_memory)
    assert hardware_of(options, torch_device_of(options)) == planned


def test_torch_is_not_imported_to_find_it() -> None:
    source = (
        "import sys\n"
        "from tightrun.runtime.limits import in_pieces, find_hardware\n"
        "from tightrun.runtime.options import EngineOptions, Machine\n"
        "from tightrun.runtime.memory_watch import MemoryWatch\n"
        "from tightrun.runtime.disk_space import disk_of\n"
        "assert find_hardware('auto', 0.9, 0.8).host_memory.bytes > 0\n"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True)
