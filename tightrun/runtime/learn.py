"""What is known of a model on this machine, found in a process of its own.

`python -m tightrun.runtime.learn` reads a question as JSON from its standard input and writes the
answer as JSON to its standard output, and nothing else there. What it does is told on standard
error, in lines that begin with NOTE. The process that asks need not import torch, and what was
taken here is given back with the process.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psutil

from tightrun.policies.known_json import VERSION

if TYPE_CHECKING:
    from tightrun.runtime.options import EngineOptions

NOTE = "note: "
REFUSED = 3
"""Exit code for what the engine would refuse; the answer is `{"refused": reason}`."""


def main() -> int:
    """Answer one question; the exit code is 0 or REFUSED.

    The question is those fields of `EngineOptions` that matter, `holding_bytes`: what the process
    that is going to run the model holds before it loads one, and `given`: whether rates are given,
    so that there is nothing to measure. The answer has `version`, `profile`, `rates` and
    `measured`, both null for what is given, or for a device that is described and not here.
    """
    bare = psutil.Process().memory_info().rss
    # Whatever a library prints must not come between.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    question = json.load(sys.stdin)
    holding = max(0, question.pop("holding_bytes") - bare)
    given = question.pop("given")
    from tightrun.runtime.learning import LearningRefusedError, learn_model

    try:
        learnt = learn_model(_options(question), holding, _notify, given=given)
        answer, code = {"version": VERSION, **asdict(learnt)}, 0
    except LearningRefusedError as error:
        answer, code = {"refused": str(error)}, REFUSED
    with answers:
        json.dump(answer, answers)
    return code


def _options(question: dict[str, Any]) -> EngineOptions:
    from pathlib import Path

    from tightrun.runtime.options import EngineOptions, Machine

    fields = dict(question)
    for name in ("spill", "kernel_cache"):
        fields[name] = Path(fields[name])
    if fields["machine"] is not None:
        flops = tuple((int(rows), float(rate)) for rows, rate in fields["machine"]["flops"])
        fields["machine"] = Machine(**(fields["machine"] | {"flops": flops}))
    return EngineOptions(**fields)


def _notify(text: str) -> None:
    print(NOTE + text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
