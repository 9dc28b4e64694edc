"""What an earlier run of a job has learnt, for a plan or a run of the same job to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tightrun.io.manifest import Manifest, read_manifest
from tightrun.io.outputs import OutputPlace
from tightrun.policies.output_shares import Learnt

# What decides how long outputs are. Other rows of the same kind are as long.
_PARTS = ("model", "tokenizer", "prompt", "sampling")


def manifest_before(place: OutputPlace) -> Manifest | None:
    """The manifest of an earlier run; None where there is none that can be read.

    To be called before the place is claimed, which moves it aside, or says what is wrong with it.
    """
    try:
        return read_manifest(place.manifest)
    except ValueError:
        return None


def learnt_before(earlier: Manifest | None, parts: Mapping[str, Any]) -> Learnt | None:
    """How long outputs were in an earlier run; None if it was of another job, or learnt nothing.

    `parts` are the fingerprint's parts of the job as it is now.
    """
    if earlier is None or not earlier.learnt.get("finished"):
        return None
    if any(earlier.fingerprint_parts.get(part) != parts[part] for part in _PARTS):
        return None
    return Learnt.of(earlier.learnt)
