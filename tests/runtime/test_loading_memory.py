"""Loading takes the memory of what is loaded, not of the checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.parity.families import RUN

MIB = 2**20
SLACK = 24 * MIB
SIZES = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 10, "vocab_size": 4096}

# Prints by how much each part's peak is above what the process held before it, in bytes.
CHILD = """
import json, sys
from pathlib import Path
import torch
from tightrun.runtime.checkpoint import ModelSource, load_config
from tightrun.runtime.skeleton import open_skeleton

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def above(load):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    kept = load()
    return memory("VmHWM") - before, kept

def skeletal():
    source = ModelSource(sys.argv[1])
    return open_skeleton(source, load_config(source), torch.bfloat16)

built, skeleton = above(skeletal)
layers = range(len(skeleton.layers))
disk, _ = above(lambda: [skeleton.slab(i, Path(sys.argv[2])) for i in layers])
outer, _ = above(lambda: skeleton.load_outer(torch.device("cpu")))
places = [torch.empty(skeleton.slab_bytes(i), dtype=torch.uint8) for i in layers]
host, _ = above(lambda: [skeleton.slab(i, place) for i, place in zip(layers, places)])
peaks = {"built": built, "disk": disk, "outer": outer, "host": host}
print(json.dumps(peaks | {"layer_bytes": places[0].numel(), "outer_bytes": skeleton.outer_bytes}))
"""


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_loading_peaks_at_what_is_loaded(family: str, tmp_path: Path) -> None:
    model_type, sizes = RUN[family]
    wide = SIZES if family == "llama" else SIZES | {"intermediate_size": 768}
    config = AutoConfig.for_model(model_type, **(sizes | wide))
    auto: Any = AutoModelForCausalLM
    auto.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "model"), str(tmp_path / "spill")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    layer = found["layer_bytes"]
    # A converted layer is there, one of its parameters again, and the parts that one is made of.
    assert found["disk"] < (0 if family == "llama" else 3 * layer) + SLACK
    assert found["outer"] < found["outer_bytes"] + SLACK
    assert 9 * layer < found["host"] < 10 * layer + SLACK
