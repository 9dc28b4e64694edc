"""A plan as plain JSON values: what `plan --json` prints and the manifest keeps."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from tightrun.cli.planning import InputFacts, Planned
from tightrun.policies.hardware import Budget, Hardware, Rates
from tightrun.policies.plan import Plan, Predicted
from tightrun.policies.planner import JobPlan
from tightrun.policies.profile import ModelProfile


def planned_json(planned: Planned) -> dict[str, Any]:
    """The whole answer; where the job does not fit, what was not planned is null."""
    if planned.job_plan is not None:
        values = job_plan_json(planned.job_plan)
    else:
        values = {
            "feasible": False,
            "hardware": hardware_json(planned.hardware, planned.known.rates),
            "model": model_json(planned.known.profile),
            "placement": None,
            "schedule": None,
            "memory": {"gpu": {}, "cpu": {}},
            "predicted": None,
            "reasons": [planned.refusal],
        }
    return {
        **values,
        "input": input_json(planned.facts),
        "advice": [asdict(each) for each in planned.advice],
        "nearest": [asdict(each) for each in planned.nearest],
    }


def job_plan_json(job_plan: JobPlan) -> dict[str, Any]:
    """A plan that fits, with the machine and the model it is for."""
    plan = job_plan.plan
    return {
        "feasible": True,
        "hardware": hardware_json(job_plan.case.hardware, job_plan.case.rates),
        "model": model_json(job_plan.case.profile),
        "placement": _placement(plan, len(job_plan.case.profile.shape.layers)),
        "schedule": {
            "policy": job_plan.case.asked.name,
            "batch_size": plan.batch_size,
            "batches": plan.batches,
            "prefill_tokens": plan.prefill_tokens,
            "context": plan.context,
        },
        "memory": _memory(plan, job_plan.case.hardware),
        "predicted": _predicted(job_plan.predicted),
        "reasons": list(plan.reasons),
    }


def input_json(facts: InputFacts) -> dict[str, Any]:
    """The rows and their tokens, and how well those are known; `error` is null without a sample."""
    workload, estimate = facts.workload, facts.estimate
    return {
        "rows": workload.rows,
        "samples": workload.samples,
        "prompt_tokens": facts.prompt_tokens,
        "bytes_per_token": estimate.bytes_per_token,
        "error": None if math.isnan(estimate.error) else estimate.error,
        "sampled_rows": estimate.sampled,
        "output_tokens": workload.typical_output,
        "output_learnt": facts.learnt,
        "longest_sequence": workload.longest_sequence,
    }


def hardware_json(hardware: Hardware, rates: Rates) -> dict[str, Any]:
    """What may be used of a machine, and how fast it is."""
    kind = hardware.device.split(":")[0]
    return {
        "device": hardware.device,
        "cores": hardware.cores or None,
        "gpu_memory": None if kind == "cpu" else _budget(hardware.device_memory),
        "cpu_memory": _budget(hardware.host_memory),
        "flops_per_s": {str(rows): rate for rows, rate in rates.flops_per_s},
        "memory_bytes_per_s": rates.memory_bytes_per_s,
        "host_bytes_per_s": rates.host_bytes_per_s,
        "h2d_bytes_per_s": rates.h2d_bytes_per_s,
        "d2h_bytes_per_s": rates.d2h_bytes_per_s,
        "disk_bytes_per_s": rates.disk_bytes_per_s,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {"bytes": budget.bytes, "limit": budget.limit}


def model_json(profile: ModelProfile) -> dict[str, Any]:
    """A model's sizes."""
    shape = profile.shape
    return {
        "name": profile.name,
        "dtype": profile.dtype,
        "params": shape.parameters,
        "bytes": shape.weight_bytes,
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "layers": len(shape.layers),
        "context": shape.context,
    }


def _placement(plan: Plan, layers: int) -> dict[str, Any]:
    resident = layers if plan.resident_layers is None else len(plan.resident_layers)
    return {
        "resident_layers": resident,
        "streamed_layers": layers - resident,
        "disk_layers": len(plan.disk_layers),
        "kv_device_tokens": plan.kv_tokens,
        "kv_host_tokens": plan.batches * plan.host_blocks * plan.block_tokens,
        "recompute_form": plan.recompute_form,
    }


def _memory(plan: Plan, hardware: Hardware) -> dict[str, dict[str, int]]:
    if hardware.device.split(":")[0] == "cpu":
        return {"gpu": {}, "cpu": dict(plan.arenas)}
    return {"gpu": dict(plan.arenas), "cpu": dict(plan.host_arenas)}


def _predicted(predicted: Predicted | None) -> dict[str, Any] | None:
    if predicted is None:
        return None
    return {**asdict(predicted), "busy_s": dict(predicted.busy_s)}
