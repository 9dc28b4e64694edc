"""What happens to a run, and when: set up inside its process before it begins.

A misfortune is a mapping: `at` is one of `MOMENTS`, `nth` which time that comes (from 1), `after_s`
how much later it strikes, `signal` what the process then gets. In the midst of a write, half of
what was to be written is there. The time at which it struck is left in the file `mark`. With
`disk`, the disk is another one: see `tests.faults.disks`. With `pass_s` a pass takes that much
longer, and the file `passes` gets a line for each: when it ended, and how many tokens it drew. With
`layer_s` every layer of a pass after the first one takes that long. `at` may also be one of
`PREPARING`, what a run does before its first row; with `hold_s` that takes so much longer.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.disks import FailingDisk, use_disk
from tests.io.lossy_disk import LossyDisk
from tightrun.cli import known, run, start_engine
from tightrun.cli.load_engine import load_engine
from tightrun.cli.pass_log import PassLog
from tightrun.core import StepRecord
from tightrun.io.durable import Data, Disk
from tightrun.runtime.batch import Batch
from tightrun.runtime.engine import Engine
from tightrun.runtime.model import CutModel

Misfortune = Mapping[str, Any]

# Files by how their names begin: where a run may be in the midst of a write.
_WRITES = {
    "journal": "rows-",
    "tokens": "tokens-",
    "columns": "columns-",
    "seal": ".train-",
    "manifest": ".manifest.json",
}
_RENAMES = {"rename": "train-", "conclude": "manifest.json"}
# Where the run calls what it does before its first row, and by which name.
PREPARING: dict[str, tuple[object, str]] = {
    "scan": (run, "scan_inputs"),
    "learn": (known, "learn_model"),
    "warm-up": (Engine, "warm_up"),
}
MOMENTS = ("time", "load", "prefill", "decode", *_WRITES, *_RENAMES)


class Strike:
    """Counts the times its moment comes, and strikes at the one that is meant."""

    def __init__(self, misfortune: Misfortune) -> None:
        self._left = int(misfortune.get("nth", 1))
        self._after_s = float(misfortune.get("after_s", 0.0))
        self._signal = signal.Signals[misfortune.get("signal", "SIGKILL")]
        self._mark = misfortune.get("mark")
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Whether this is the time; True once."""
        with self._lock:
            self._left -= 1
            return self._left == 0

    def now(self) -> None:
        """Strikes after its while; a kill without one never returns."""
        if self._after_s:
            timer = threading.Timer(self._after_s, self._hit)
            timer.daemon = True
            timer.start()
        else:
            self._hit()

    def _hit(self) -> None:
        if self._mark:
            Path(self._mark).write_text(f"{time.time()}")
        os.kill(os.getpid(), self._signal)


def arm(misfortune: Misfortune) -> None:
    """Sets it up; for the whole life of this process."""
    if "pass_s" in misfortune:
        _slow_passes(misfortune)
    if "layer_s" in misfortune:
        _slow_layers(float(misfortune["layer_s"]))
    if "disk" in misfortune:
        use_disk(FailingDisk(misfortune))
    elif "power_cut" in misfortune:
        use_disk(_Cut(misfortune))
    else:
        strike, hold_s = Strike(misfortune), float(misfortune.get("hold_s", 0.0))
        _arm_strike(str(misfortune["at"]), strike, hold_s)


def _arm_strike(at: str, strike: Strike, hold_s: float) -> None:
    if at == "time":
        strike.now()
    elif at in PREPARING:
        _in_preparing(strike, *PREPARING[at], hold_s)
    elif at == "load":
        _before_load(strike)
    elif at in ("prefill", "decode"):
        _in_pass(strike, prefill=at == "prefill")
    elif at in _WRITES:
        _in_write(strike, _WRITES[at])
    else:
        _around_rename(strike, _RENAMES[at])


def _in_preparing(strike: Strike, place: object, name: str, hold_s: float) -> None:
    prepare = getattr(place, name)

    def preparing(*args: Any, **more: Any) -> Any:
        if strike.is_due():
            strike.now()
            time.sleep(hold_s)
        return prepare(*args, **more)

    _put(place, name, preparing)


def _before_load(strike: Strike) -> None:
    load = load_engine

    def loading(*args: Any) -> Any:
        if strike.is_due():
            strike.now()
        return load(*args)

    _put(start_engine, "load_engine", loading)


def _in_pass(strike: Strike, *, prefill: bool) -> None:
    """After a pass of that kind; with `after_s` most likely in the next one."""
    step = PassLog.step

    def stepping(log: PassLog, record: StepRecord) -> None:
        if (record.prefill_tokens > 0) is prefill and strike.is_due():
            strike.now()
        step(log, record)

    _put(PassLog, "step", stepping)


def _slow_passes(misfortune: Misfortune) -> None:
    step = PassLog.step

    def stepping(log: PassLog, record: StepRecord) -> None:
        with Path(misfortune["passes"]).open("a") as file:
            # A pass that is a row's prefill draws its first token.
            file.write(f"{time.time()} {record.sequences}\n")
        time.sleep(float(misfortune["pass_s"]))
        step(log, record)

    _put(PassLog, "step", stepping)


def _slow_layers(seconds: float) -> None:
    run_layer, step = CutModel.run_layer, PassLog.step
    begun = threading.Event()

    def running(cut: CutModel, layer: int, batch: Batch) -> None:
        if begun.is_set():
            time.sleep(seconds)
        run_layer(cut, layer, batch)

    def stepping(log: PassLog, record: StepRecord) -> None:
        step(log, record)
        begun.set()

    _put(CutModel, "run_layer", running)
    _put(PassLog, "step", stepping)


def _in_write(strike: Strike, begin: str) -> None:
    write = Disk.write

    def writing(disk: Disk, fd: int, data: Data) -> int:
        if _name_of(fd).startswith(begin) and strike.is_due():
            half = memoryview(data)[: len(data) // 2]
            done = write(disk, fd, half) if half else 0
            strike.now()
            return done + write(disk, fd, memoryview(data)[done:])
        return write(disk, fd, data)

    _put(Disk, "write", writing)


def _around_rename(strike: Strike, begin: str) -> None:
    """Odd times before the rename, even ones after it."""
    rename = Disk.rename

    def renaming(disk: Disk, old: Path, new: Path) -> None:
        if new.name.startswith(begin):
            if strike.is_due():
                strike.now()
            rename(disk, old, new)
            if strike.is_due():
                strike.now()
        else:
            rename(disk, old, new)

    _put(Disk, "rename", renaming)


def _put(place: object, name: str, function: Callable[..., Any]) -> None:
    assert hasattr(place, name)
    setattr(place, name, function)


def _name_of(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name


class _Cut(LossyDisk):
    """A disk that at its moment leaves what is on it in the folder `left`, and the process dies."""

    def __init__(self, misfortune: Misfortune) -> None:
        super().__init__(int(misfortune["power_cut"]))
        self._root, self._left = Path(misfortune["root"]), Path(misfortune["left"])
        self._lock = threading.Lock()
        self.adopt(self._root)

    def _step(self) -> None:
        with self._lock:
            self.count += 1
            if self.fail_at is not None and self.count > self.fail_at:
                self.leave(self._root, self._left)
                os.kill(os.getpid(), signal.SIGKILL)
