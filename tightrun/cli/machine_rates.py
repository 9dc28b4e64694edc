"""The rates of a machine that is only described, from what its description says."""

from __future__ import annotations

from tightrun.cli.engine_seam import RefusedError
from tightrun.io.job import Machine
from tightrun.policies.hardware import Rates


def described_rates(machine: Machine) -> Rates:
    """Rates as given: nothing was timed, so `work` is None. Raises RefusedError if some lack."""
    asked = {
        "flops": machine.flops or None,
        "device_bandwidth": machine.device_bandwidth,
        "h2d": machine.h2d,
        "d2h": machine.d2h,
    }
    if lacking := [name for name, value in asked.items() if value is None]:
        raise RefusedError(
            f"hardware: there is no {machine.device} device here to measure, and the description "
            f"of it lacks {', '.join(lacking)}; such as flops: {{64: 30TFLOP/s}}, "
            "device_bandwidth: 900GB/s, h2d: 25GB/s, d2h: 25GB/s"
        )
    return Rates(
        flops_per_s=tuple(sorted(machine.flops.items())),
        memory_bytes_per_s=machine.device_bandwidth or 0.0,
        h2d_bytes_per_s=machine.h2d or 0.0,
        d2h_bytes_per_s=machine.d2h or 0.0,
        disk_bytes_per_s=machine.disk_read or 0.0,
        host_bytes_per_s=machine.host_bandwidth or 0.0,
    )
