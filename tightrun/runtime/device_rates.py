"""What a device, its memories and its links can do: measured, where the machine does not say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from tightrun.policies.hardware import Rates
from tightrun.policies.shape import ModelShape
from tightrun.runtime.device import Device, Move
from tightrun.runtime.kernel_choice import fusing_kernels
from tightrun.runtime.kernels.cpu import CpuKernels
from tightrun.runtime.link_rates import links_running, with_links
from tightrun.runtime.options import Machine
from tightrun.runtime.rates import memory_bandwidth, probe_rates
from tightrun.runtime.reading_probe import lost_beside
from tightrun.runtime.work_probe import TimedModel, probe_work


def rates_of_device(
    shape: ModelShape,
    dtype: torch.dtype,
    device: Device,
    machine: Machine | None,
    disk_moves: Sequence[Move],
    kernels: CpuKernels | None = None,
    *,
    packed: bool,
) -> Rates:
    """Rates for products of this model's width, and of everything that moves bytes.

    On an emulated device the processor computes beside its links, and no rate of computing is the
    machine's own.
    """
    with links_running(device):
        rates = probe_rates(shape, dtype, device.torch, kernels, packed=packed)
    host = rates.memory_bytes_per_s
    if device.torch.type != "cpu":
        host = memory_bandwidth(torch.device("cpu"))
    rates = replace(rates, host_bytes_per_s=host)
    if machine is not None and machine.device != "emulated":
        own = machine.host_bandwidth if machine.device == "cpu" else machine.device_bandwidth
        rates = replace(
            rates,
            flops_per_s=machine.flops or rates.flops_per_s,
            memory_bytes_per_s=own or rates.memory_bytes_per_s,
            host_bytes_per_s=machine.host_bandwidth or host,
        )
    return with_links(rates, device, machine, disk_moves)


def rates_of_model(
    model: TimedModel, device: Device, machine: Machine | None, disk_moves: Sequence[Move]
) -> Rates:
    """The same, with what the model's own work takes; not where the machine is said to compute at
    other rates than this one."""
    kernels = fusing_kernels(model.kernel, model.dtype)
    rates = rates_of_device(
        model.shape, model.dtype, device, machine, disk_moves, kernels, packed=model.packed
    )
    if machine is not None and machine.flops and machine.device != "emulated":
        return rates
    with links_running(device):
        if model.shape.weight_bytes <= device.host_memory.budget // 2:
            return replace(rates, work=probe_work(model))
        lost = partial(lost_beside, device, disk_moves, rates.disk_bytes_per_s)
        return replace(rates, work=probe_work(model, lost))
