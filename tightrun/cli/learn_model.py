"""Has a process of its own find out what is to be known of a job's model on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import Any

import psutil

from tightrun.cli.capacities import memory_within
from tightrun.cli.engine_seam import RefusedError
from tightrun.cli.load_engine import cache_folder, torch_device
from tightrun.cli.machine_rates import described_rates
from tightrun.io.job import Job, Machine
from tightrun.policies.hardware import Rates
from tightrun.policies.known_json import (
    VERSION,
    measured_from_json,
    profile_from_json,
    rates_from_json,
)
from tightrun.policies.profile import Known

NOTE = "note: "
REFUSED = 3
LAST_LINES = 5


def learn_model(job: Job, notify: Callable[[str], None], given: Rates | None = None) -> Known:
    """What a process without the model's weights finds out about it; takes seconds. With rates that
    are `given`, none are measured.

    Raises RefusedError for a model or device that cannot be used or is not described in full,
    RuntimeError if the process fails.
    """
    code, answer, errors = _ask(_question(job) | {"given": given is not None}, notify)
    if code == REFUSED:
        raise RefusedError(str(json.loads(answer)["refused"]))
    if code != 0:
        died = f"was ended by signal {-code}" if code < 0 else f"failed with code {code}"
        said = "\n".join(errors[-LAST_LINES:])
        raise RuntimeError(f"the process that learns {job.model.path} {died}:\n{said}")
    found = json.loads(answer)
    assert found["version"] == VERSION, "the process that learns is another version"
    profile = profile_from_json(found["profile"])
    if found["rates"] is not None:
        rates, measured = rates_from_json(found["rates"]), measured_from_json(found["measured"])
        return Known(profile, rates, measured)
    if given is not None:
        return Known(profile, given)
    assert isinstance(job.hardware, Machine)
    return Known(profile, described_rates(job.hardware))


def _question(job: Job) -> dict[str, Any]:
    """The fields of the engine's options that decide what is found."""
    machine = job.hardware if isinstance(job.hardware, Machine) else None
    cache = cache_folder(os.environ)
    return {
        "model": job.model.path,
        "revision": job.model.revision,
        "dtype": job.model.dtype,
        "trust_remote_code": job.model.trust_remote_code,
        "device": torch_device(job),
        "machine": None if machine is None else _machine(machine),
        "gpu_memory": memory_within(job.limits.gpu_memory, machine.gpu_memory if machine else None),
        "cpu_memory": memory_within(job.limits.cpu_memory, machine.cpu_memory if machine else None),
        "spill": str(cache / "slabs"),
        "kernel_cache": str(cache / "kernels"),
        "compiler": os.environ.get("CXX"),
        "holding_bytes": psutil.Process().memory_info().rss,
    }


def _machine(machine: Machine) -> dict[str, Any]:
    fields = dict(machine)
    latency_us = fields.pop("latency_us")
    return fields | {
        "latency_s": None if latency_us is None else latency_us / 1e6,
        "flops": sorted(machine.flops.items()),
    }


def _ask(question: dict[str, Any], notify: Callable[[str], None]) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines of standard error that were no notes."""
    errors: list[str] = []
    # torch reads it at its first allocation: huge pages where the system offers them.
    environment = {"THP_MEM_ALLOC_ENABLE": "1"} | os.environ
    with (
        TemporaryFile("w+") as answer,
        subprocess.Popen(
            [sys.executable, "-m", "tightrun.runtime.learn"],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            with process.stdin as asked:
                json.dump(question, asked)
            for line in process.stderr:
                if line.startswith(NOTE):
                    notify(line.removeprefix(NOTE).strip())
                else:
                    errors.append(line.rstrip())
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        answer.seek(0)
        return code, answer.read(), errors
