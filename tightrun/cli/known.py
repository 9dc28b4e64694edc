"""What was found out about models on this machine, kept for later runs and plans.

Looking it up imports no torch. It holds as long as nothing changes that it was made of; what was
measured beside other work holds until the machine is idle.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tightrun.cli import units
from tightrun.cli.known_files import keep, kept
from tightrun.cli.learn_model import learn_model
from tightrun.cli.load_engine import cache_folder
from tightrun.cli.model_files import model_identity
from tightrun.cli.planning import hardware_of
from tightrun.cli.this_machine import fingerprint, versions
from tightrun.io.job import Job, Machine
from tightrun.policies.hardware import Rates
from tightrun.policies.planner import weights_fit
from tightrun.policies.profile import MOST_OTHERS, Known, Measured
from tightrun.runtime.disturbance import others_now
from tightrun.runtime.system import System

Notify = Callable[[str], None]

# Measurements beside other work after which the least disturbed is used without another try.
MOST_TRIES = 3


class KnownHere:
    """What is kept of a job's model on its machine, for the way it would run as things are now.

    There are two files on a CPU, since it computes otherwise where all weights stay in its memory.
    Raises RefusedError for a model or a device that is not there.
    """

    def __init__(self, job: Job, notify: Notify) -> None:
        machine = job.hardware
        told = machine.model_dump_json() if isinstance(machine, Machine) else machine
        identity = model_identity(job.model)
        lines = [*identity, job.model.dtype, told, *fingerprint(System(), Path(identity[0]))]
        self.resident, self.streamed = _path(lines, "-resident"), _path(lines)
        # As it is before anything is loaded: what is free is less afterwards.
        self._hardware = hardware_of(job)
        self._notify = notify

    def find(self) -> Known | None:
        """What is kept, however it was measured."""
        resident, streamed = kept(self.resident, self._notify), kept(self.streamed, self._notify)
        either = resident or streamed
        if either is None:
            return None
        return resident if self._stays(either) else streamed

    def begin_with(self) -> Known | None:
        """What is kept, if it need not be found again; says what is wrong with it."""
        known = self.find()
        if known is None or _try_again(known, self._notify):
            return None
        _warn(known, self._notify)
        return known

    def keep(self, found: Known, *, anew: bool = False) -> Known:
        """Keeps what was found; returns what is to be used, which is a less disturbed measurement
        if there was one, unless all is to be found `anew`."""
        path = self.resident if self._stays(found) else self.streamed
        best = found if anew else _better(kept(path, self._notify), found)
        keep(path, best, self._notify)
        _warn(best, self._notify)
        return best

    def _stays(self, known: Known) -> bool:
        return self._hardware.device == "cpu" and weights_fit(known.profile, self._hardware)


def known_for(
    job: Job, notify: Notify, *, given: Rates | None = None, refresh: bool = False
) -> Known:
    """What is known of the job's model on its machine: as kept, else found by a process of its own.

    With rates that are `given`, it is the model alone that is found out about. With `refresh` all
    is found again. Raises RefusedError for a model or device that cannot be used, RuntimeError if
    that process fails.
    """
    if given is not None:
        return _with_given(job, given, notify)
    here = KnownHere(job, notify)
    known = None if refresh else here.begin_with()
    return known or here.keep(learn_model(job, notify), anew=refresh)


def _with_given(job: Job, given: Rates, notify: Notify) -> Known:
    device = job.hardware.device if isinstance(job.hardware, Machine) else job.hardware
    path = _path([*model_identity(job.model), job.model.dtype, "given", device, *versions()])
    known = kept(path, notify)
    if known is None:
        known = learn_model(job, notify, given)
        keep(path, known, notify)
    return replace(known, rates=given)


def _disturbed(known: Known) -> Measured | None:
    """How it was measured, if that was beside other work."""
    return known.measured if known.measured and known.measured.disturbed else None


def _try_again(known: Known, notify: Notify) -> bool:
    """Whether it was measured beside other work, and the machine is idle now."""
    measured = _disturbed(known)
    if measured is None or measured.tries >= MOST_TRIES or others_now() > MOST_OTHERS:
        return False
    notify("this machine was measured beside other work, is idle now, and is measured again")
    return True


def _better(before: Known | None, now: Known) -> Known:
    """The less disturbed one of two measurements of the same."""
    earlier, later = before and _disturbed(before), now.measured
    if not before or not earlier or not later or _is_packed(before) != _is_packed(now):
        return now
    tries = earlier.tries + later.tries
    if earlier.others_share < later.others_share:
        return replace(before, measured=replace(earlier, tries=tries))
    return replace(now, measured=replace(later, tries=tries))


def _is_packed(known: Known) -> bool:
    return known.rates.work is not None and known.rates.work.packed


def _warn(known: Known, notify: Notify) -> None:
    measured = _disturbed(known)
    if measured is not None:
        notify(
            f"this machine was measured beside other work, which took "
            f"{units.percent(measured.others_share)} of its processors: the plan may promise too "
            "little. `tightrun doctor JOB.yaml --refresh` measures again"
        )


def _path(lines: list[str], way: str = "") -> Path:
    name = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
    return cache_folder(os.environ) / "known" / f"{name}{way}.json"
