"""What contexts off the device cost the host is timed beside, and takes nothing of, the device."""

from __future__ import annotations

import pytest
import torch

from tightrun.policies.hardware import Budget, Hardware
from tightrun.runtime import context_probe
from tightrun.runtime.context_probe import layer_seconds_of_contexts
from tightrun.runtime.machines import make_device
from tightrun.runtime.options import EngineOptions, Machine

CPU = torch.device("cpu")
GIB = 2**30
EMULATED = Machine("emulated", GIB, GIB, h2d=2e9, d2h=2e9, disk_read=2e9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_emulated_device_is_timed_by_another_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_probe, "PASSES", 4)
    monkeypatch.setattr(context_probe, "ROWS", 4)
    options = EngineOptions("model", machine=EMULATED)
    device = make_device(options, Hardware("cpu", *[Budget(GIB, "test")] * 2, 0), CPU, print)
    try:
        assert layer_seconds_of_contexts(options, device, dtype, print) >= 0
        assert device.memory.used == device.host_memory.used == 0
    finally:
        device.close()


def test_on_a_cpu_context_is_nowhere_else() -> None:
    options = EngineOptions("model")
    device = make_device(options, Hardware("cpu", *[Budget(GIB, "test")] * 2, 0), CPU, print)
    try:
        assert layer_seconds_of_contexts(options, device, torch.float32, print) == 0.0
    finally:
        device.close()
