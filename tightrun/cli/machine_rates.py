"""A machine that is only described, and not here: its memories and rates, as they are given."""

from __future__ import annotations

from tightrun.cli.capacities import memory_within
from tightrun.cli.engine_seam import RefusedError
from tightrun.io.job import Machine
from tightrun.io.job_sections import LimitsSpec
from tightrun.policies.hardware import Budget, Hardware, Rates

# What a machine must say of itself, and what is usual.
_FLOPS = {
    "flops": "matrix products by their rows in the model's number format, such as "
    "{64: 50TFLOP/s, 2048: 150TFLOP/s} (RTX 4090), {64: 150TFLOP/s, 2048: 600TFLOP/s} (H100)"
}
_LINKS = {
    "device_bandwidth": "300GB/s (T4, L4), 1000GB/s (RTX 4090), 2000GB/s (A100), 3350GB/s (H100)",
    "h2d": "12GB/s (PCIe 3 x16), 25GB/s (PCIe 4 x16), 50GB/s (PCIe 5 x16)",
    "d2h": "the same as h2d on most machines",
}
_MEMORIES = {"cpu_memory": "128GiB"}
_GPU = {"gpu_memory": "16GiB (T4), 24GiB (RTX 4090, L4), 80GiB (A100, H100)"}
_CPU = {
    "host_bandwidth": "40GB/s (two channels of DDR4), 200GB/s (eight of DDR4), 400GB/s (of DDR5)",
    "flops": "matrix products by their rows in the model's number format, such as "
    "{16: 0.5TFLOP/s, 1024: 2TFLOP/s} (32 cores with AVX-512)",
}
_DISK = {"disk_read": "0.5GB/s (SATA), 3GB/s (NVMe on PCIe 3), 7GB/s (NVMe on PCIe 4)"}


def described_rates(machine: Machine) -> Rates:
    """Rates as given: nothing was timed, so `work` is None. Raises RefusedError if some lack."""
    is_cpu = machine.device == "cpu"
    _refuse_lacking(machine, _CPU if is_cpu else _FLOPS | _LINKS)
    memory = machine.host_bandwidth if is_cpu else machine.device_bandwidth
    return Rates(
        flops_per_s=tuple(sorted(machine.flops.items())),
        memory_bytes_per_s=memory or 0.0,
        h2d_bytes_per_s=machine.h2d or 0.0,
        d2h_bytes_per_s=machine.d2h or 0.0,
        disk_bytes_per_s=machine.disk_read or 0.0,
        host_bytes_per_s=machine.host_bandwidth or 0.0,
    )


def described(machine: Machine, limits: LimitsSpec) -> tuple[Hardware, Rates]:
    """The memories as given, within the job's limits, and the rates; nobody knows how many `cores`,
    so 0. Raises RefusedError if something lacks.
    """
    is_cpu = machine.device == "cpu"
    _refuse_lacking(machine, _MEMORIES | _CPU if is_cpu else _MEMORIES | _GPU | _FLOPS | _LINKS)
    rates = described_rates(machine)
    cpu = memory_within(limits.cpu_memory, machine.cpu_memory)
    host = Budget(int(cpu), f"hardware.cpu_memory, limits.cpu_memory {limits.cpu_memory}")
    if is_cpu:
        return Hardware("cpu", host, host, cores=0), rates
    gpu = memory_within(limits.gpu_memory, machine.gpu_memory)
    device = Budget(int(gpu), f"hardware.gpu_memory, limits.gpu_memory {limits.gpu_memory}")
    return Hardware("cuda:0", device, host, cores=0), rates


def refuse_unknown_disk(machine: Machine) -> None:
    """Raises RefusedError if it is not said how fast the disk is."""
    _refuse_lacking(machine, _DISK)


def _refuse_lacking(machine: Machine, wanted: dict[str, str]) -> None:
    lacking = [name for name in wanted if not getattr(machine, name)]
    if lacking:
        usual = "".join(f"\n  {name}: {wanted[name]}" for name in lacking)
        raise RefusedError(
            f"the {machine.device} of this description is not here to be measured, and it lacks "
            f"{', '.join(lacking)}. Usual are{usual}"
        )
