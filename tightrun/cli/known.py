"""What was found out about models on this machine, kept for later runs and plans.

One small file for each model, device and machine, below the cache folder. Looking one up imports
no torch. A file holds as long as nothing changes that it was made of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import orjson

from tightrun.cli.learn_model import learn_model
from tightrun.cli.load_engine import cache_folder
from tightrun.cli.model_files import model_identity
from tightrun.cli.this_machine import fingerprint
from tightrun.io.durable import Disk
from tightrun.io.job import Job, Machine
from tightrun.policies.known_json import known_from_json, known_to_json
from tightrun.policies.profile import Known
from tightrun.runtime.system import System

Notify = Callable[[str], None]


def known_for(job: Job, notify: Notify, *, refresh: bool = False) -> Known:
    """What is known of the job's model on its machine: as kept, else found by a process of its own.

    With `refresh` it is found again. Raises RefusedError for a model or device that cannot be
    used, RuntimeError if that process fails.
    """
    path = known_path(job)
    known = None if refresh else kept(path, notify)
    if known is None:
        known = learn_model(job, notify)
        keep(path, known, notify)
    return known


def known_path(job: Job) -> Path:
    """The file for the job's model, device and machine; it need not be there.

    Raises RefusedError if there is no such model.
    """
    machine = job.hardware.model_dump_json() if isinstance(job.hardware, Machine) else job.hardware
    lines = [*model_identity(job.model), job.model.dtype, machine, *fingerprint(System())]
    key = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
    return cache_folder(os.environ) / "known" / f"{key}.json"


def kept(path: Path, notify: Notify) -> Known | None:
    """What the file says; None if it is not there, or not to be used, which is said."""
    try:
        return known_from_json(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        notify(f"{path} is not used, and what it knew found again: {error}")
        return None


def keep(path: Path, known: Known, notify: Notify) -> None:
    """Keep it for later; a disk that takes no file is said, and no reason to stop."""
    disk = Disk()
    try:
        disk.make_folder(path.parent)
        disk.write_whole(path, [orjson.dumps(known_to_json(known))])
    except OSError as error:
        notify(f"what was found out about the model is not kept for later: {error}")
