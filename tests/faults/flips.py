"""Bytes that flip in what a run has left: shards, seals, journals and spools."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from tests.faults.kills import undisturbed
from tests.faults.runs import Runs, check_whole, make_job

_KINDS = {
    "shard": "data/train-*",
    "seal": "_tightrun/sealed/*",
    "journal": "_tightrun/journal/rows-*",
    "tokens": "_tightrun/journal/tokens-*",
    "columns": "_tightrun/journal/columns-*",
}


def flip_often(
    runs: Runs, folder: Path, model: Path, flips: int, *, way: str, seed: int = 0
) -> Counter[str]:
    """Flips a byte at so many places of what a kill has left, a place at a time, and goes on.

    The damage must be said, and the output be what one run leaves. Returns how many flips there
    were in each kind of file.
    """
    chance = random.Random(f"flips {way} {seed}")
    expected = undisturbed(runs, folder, model, way)
    image = _half_done(runs, folder, model, way)
    files = {kind: sorted(image.glob(pattern)) for kind, pattern in _KINDS.items()}
    kinds = [kind for kind, found in files.items() if found]
    assert {"shard", "seal", "journal", "tokens"} <= set(kinds), kinds
    flipped: Counter[str] = Counter()
    out = folder / f"flip-{way}"
    job = make_job(folder, model, out.name, way)
    for number in range(flips):
        kind = kinds[number % len(kinds)]
        path = chance.choice(files[kind])
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(image, out)
        where = _flip(out / path.relative_to(image), chance)
        flipped[kind] += 1
        ended = runs.run(job)
        assert ended.code == 0, f"after a flip in {path.name} at {where}:\n{ended.said}"
        if kind != "columns":
            assert _is_said(ended.said), f"no word of {path.name} at {where}:\n{ended.said}"
        check_whole(out, expected)
    return flipped


def _half_done(runs: Runs, folder: Path, model: Path, way: str) -> Path:
    """What a run leaves that is killed when it has sealed some shards and begun others.

    Before the rename of the third: a shard that has its name and no seal yet is written anew,
    whatever it holds.
    """
    out = folder / f"half-{way}"
    job = make_job(folder, model, out.name, way)
    ended = runs.run(job, {"at": "rename", "nth": 9})
    assert ended.killed, ended.said
    return out


def _flip(path: Path, chance: random.Random) -> int:
    content = bytearray(path.read_bytes())
    where = chance.randrange(len(content))
    content[where] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return where


def _is_said(said: str) -> bool:
    return any(
        word in line
        for line in said.splitlines()
        if " note: " in line
        for word in ("damaged", "not trusted", "cut the last record", "no seal", "run again")
    )
