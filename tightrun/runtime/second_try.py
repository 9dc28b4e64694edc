"""Loading again with a smaller budget where memory ran out: what was planned with is not there any
more, or lies in pieces too small."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from tightrun.policies.plan import DoesNotFitError
from tightrun.runtime.allocator import give_back_cached_memory
from tightrun.runtime.loaded_model import Notify
from tightrun.runtime.machines import torch_device_of
from tightrun.runtime.memory_failures import first_line, is_memory_failure
from tightrun.runtime.options import EngineOptions

SMALLER = 0.9

T = TypeVar("T")


def at_most_twice(make: Callable[[EngineOptions], T], options: EngineOptions, notify: Notify) -> T:
    """What `make` makes; where it runs out of memory, of options with nine tenths of the budgets.

    `make` leaves nothing behind when it fails. Raises DoesNotFitError where the second try fails
    as well, with what asked for how much.
    """
    try:
        return make(options)
    except Exception as error:
        if not is_memory_failure(error):
            raise
        reason = first_line(error)
    # The error is gone by now, and with it what its frames held of the model.
    gc.collect()
    give_back_cached_memory(torch_device_of(options))
    notify(
        f"out of memory while the model was loaded ({reason}): planned again with "
        f"{100 * SMALLER:.0f} % of the memory"
    )
    try:
        return make(smaller(options))
    except DoesNotFitError as error:
        raise DoesNotFitError(f"{error} All of the memory was tried before: {reason}.") from None
    except Exception as error:
        if not is_memory_failure(error):
            raise
        raise DoesNotFitError(
            f"does not fit: memory ran out while the model was loaded, and again with "
            f"{100 * SMALLER:.0f} % of it planned with: {first_line(error)}. End what else takes "
            "memory here, or lower limits.gpu_memory and limits.cpu_memory."
        ) from error


def smaller(options: EngineOptions) -> EngineOptions:
    """The options with smaller budgets, shares or bytes as they were given."""
    gpu, cpu = options.gpu_memory, options.cpu_memory
    return replace(
        options,
        gpu_memory=int(gpu * SMALLER) if isinstance(gpu, int) else gpu * SMALLER,
        planned_share=options.planned_share * SMALLER,
        cpu_memory=int(cpu * SMALLER) if isinstance(cpu, int) else cpu * SMALLER,
    )
