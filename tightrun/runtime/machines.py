"""The device of a job: found here, or emulated as the job file describes it."""

from __future__ import annotations

import torch

from tightrun.policies.hardware import Hardware
from tightrun.runtime.cpu_device import CpuDevice
from tightrun.runtime.device import Device
from tightrun.runtime.emulated_device import EmulatedDevice
from tightrun.runtime.limits import find_hardware
from tightrun.runtime.links import Delay
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.memory import Faults
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.torch_device import choose_device


def is_emulated(options: EngineOptions) -> bool:
    return options.machine is not None and options.machine.device == "emulated"


def torch_device_of(options: EngineOptions) -> torch.device:
    """Where torch computes. Raises ValueError for a device that is not there."""
    return torch.device("cpu") if is_emulated(options) else choose_device(options.device)


def hardware_of(options: EngineOptions, device: torch.device) -> Hardware:
    """The memories that may be used. Raises ValueError for an emulated device without a size."""
    name = str(device)
    return find_hardware(name, options.gpu_memory, options.cpu_memory, options.machine)


def make_device(
    options: EngineOptions,
    hardware: Hardware,
    device: torch.device,
    notify: Notify,
    delay: Delay | None = None,
    faults: Faults | None = None,
) -> Device:
    """The device with its links and its ledgers. `delay` and `faults` are a test's."""
    machine = options.machine
    own, host = hardware.device_memory.bytes, hardware.host_memory.bytes
    if device.type == "cuda":
        from tightrun.runtime.cuda_device import CudaDevice

        cuda: Device = CudaDevice(device, own, host, delay=delay, notify=notify)
        return cuda
    if machine is None or machine.device != "emulated":
        return CpuDevice(own, delay=delay, notify=notify, faults=faults)
    return EmulatedDevice(
        own,
        host,
        h2d=machine.h2d,
        d2h=machine.d2h,
        disk_read=machine.disk_read,
        latency_s=machine.latency_s or 0.0,
        delay=delay,
        notify=notify,
        faults=faults,
    )
