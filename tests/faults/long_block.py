"""What a kill costs when many rows are deep in their texts and none has finished for long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.faults.runs import Runs, make_job
from tightrun.io.manifest import read_manifest
from tightrun.io.output_place import OutputPlace
from tightrun.io.token_journal import read_tokens

# A pass is made to take at least this long: the block of the tiny model would be over in a moment.
PASS_S = 0.1
MOST_S = 10.0


@dataclass(frozen=True, slots=True)
class Loss:
    """Tokens drawn before the kill, of these those to be drawn again, and in how many seconds."""

    drawn: int
    lost: int
    lost_s: float


def kill_in_a_long_block(
    runs: Runs, folder: Path, model: Path, kills: int, *, seed: int = 0
) -> list[Loss]:
    """Kills runs in the midst of decoding, with the journal's own period.

    Raises AssertionError when a kill costs more than the last `MOST_S` of decoding.
    """
    chance = random.Random(f"long {seed}")
    found = []
    for number in range(kills):
        out = folder / f"long-{number}"
        sampling = {"max_tokens": 400, "ignore_eos": True}
        job = make_job(folder, model, out.name, sampling=sampling)
        passes = folder / f"passes-{number}"
        misfortune = {
            "at": "decode",
            "nth": chance.randint(150, 300),
            "pass_s": PASS_S,
            "passes": str(passes),
        }
        ended = runs.run(job, misfortune, sync_s=None)
        assert ended.killed, ended.said
        loss = _loss(out, passes)
        assert loss.lost_s <= MOST_S, loss
        found.append(loss)
    return found


def _loss(out: Path, passes: Path) -> Loss:
    """From the times and tokens of the passes, and what of them is in the journal."""
    manifest = read_manifest(OutputPlace.of(out).manifest)
    assert manifest is not None
    begun, _ = read_tokens(OutputPlace.of(out).journal, manifest.fingerprint)
    kept = sum(piece.stop for samples in begun.values() for piece in samples.values())
    lines = [line.split() for line in passes.read_text().splitlines()]
    drawn = sum(int(tokens) for _, tokens in lines)
    lost = drawn - kept
    left, last_s = lost, float(lines[-1][0])
    for at_s, tokens in reversed(lines):
        if left <= 0:
            return Loss(drawn, lost, last_s - float(at_s))
        left -= int(tokens)
    return Loss(drawn, lost, last_s - float(lines[0][0]))
