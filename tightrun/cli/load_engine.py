"""From a job and the scan of its input to a loaded engine; the one door of the command line to
torch, which is imported here and not before."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tightrun.cli.engine_seam import Engine, RefusedError
from tightrun.io.inputs import Scan
from tightrun.io.job import Job, JobError, Machine
from tightrun.io.places import Place, Problem
from tightrun.policies.plan import DoesNotFitError

LOADING = "loading"
WARM_UP = "warm-up"


def load_engine(job: Job, scan: Scan, rows: int, notify: Callable[[str], None]) -> Engine:
    """The engine for the first `rows` rows of the input.

    Raises JobError for a machine to emulate, RefusedError for a model or device that cannot be
    used, DoesNotFitError with the sum when memory does not suffice.
    """
    device = job.hardware
    if isinstance(device, Machine):
        remedy = "this version runs only on the hardware it finds; write auto, cpu or cuda:0"
        place = Place("job" if job.path is None else str(job.path))
        raise JobError([Problem(place, ("hardware",), remedy)])

    # torch reads it at its first allocation: huge pages where the system offers them.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from tightrun.runtime.engine import Engine as RealEngine
    from tightrun.runtime.engine import EngineOptions

    options = EngineOptions(
        model=job.model.path,
        revision=job.model.revision,
        dtype=job.model.dtype,
        tokenizer=job.model.tokenizer,
        trust_remote_code=job.model.trust_remote_code,
        device=device,
        gpu_memory=job.limits.gpu_memory.value,
        cpu_memory=job.limits.cpu_memory.value,
        context=job.limits.context,
        batch_size=job.policy.batch_size,
        batches=job.policy.batches,
        chat=job.input.chat,
        system=job.input.system,
        on_overflow=job.on_overflow,
        sampling_n=job.sampling.n,
        max_tokens=job.sampling.max_tokens,
        rows=rows,
        prompt_bytes=longest_prompt_bytes(job, scan, rows),
        kernel_cache=cache_folder(os.environ) / "kernels",
        compiler=os.environ.get("CXX"),
    )
    try:
        return RealEngine.load(options, notify)
    except DoesNotFitError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error


def longest_prompt_bytes(job: Job, scan: Scan, rows: int) -> int | None:
    """Bytes of the longest prompt, system prompt and template included; None where rows may set
    their own `max_tokens`, so that the length of a sequence is not known from its prompt."""
    if scan.format in ("openai-batch", "mixed") or "sampling_params" in scan.columns or not rows:
        return None
    around = (job.input.system or "") + (job.input.template or "")
    return int(scan.lengths[:rows].max()) + len(around.encode())


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where what was built once is kept for the next run."""
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tightrun"
