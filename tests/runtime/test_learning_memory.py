"""What learning a model takes of memory: one layer, then the head, never both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 2**20
# A layer of about 350 MiB in float32, a head of 380 MiB.
SIZES = {
    "hidden_size": 2048,
    "intermediate_size": 12_288,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 49_152,
}
LAYER, HEAD = (4 * 2048 + 3 * 12_288) * 2048 * 4, 49_152 * 2048 * 4
# The probes' own: a product of 100 MB, 64 MB each from the disk and in KV, random numbers.
BESIDE = 330 * MIB
PROCESS = """
import sys
from pathlib import Path
from tests.quick_probes import quick_probes
from tightrun.runtime.learning import learn_model
from tightrun.runtime.options import EngineOptions

def figure(name):
    status = open("/proc/self/status").read()
    return 1024 * int(status.partition(name + ":")[2].split()[0])

folder = Path(sys.argv[1])
before = figure("VmRSS")
with quick_probes():
    options = EngineOptions(str(folder), device="cpu", dtype="float32", spill=folder / "spill")
    learnt = learn_model(options, 0, lambda _: None)
assert learnt.rates.work.head_s
print(figure("VmHWM") - before)
"""


@pytest.mark.slow
def test_a_layer_and_the_head_are_never_in_memory_together(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SIZES}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = subprocess.run(
        [sys.executable, "-c", PROCESS, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert min(LAYER, HEAD) > BESIDE
    assert int(run.stdout) < max(LAYER, HEAD) + BESIDE
