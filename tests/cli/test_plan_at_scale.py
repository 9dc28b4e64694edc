"""A plan for a large model and many rows is light: neither torch nor much memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.cli.tokenizers_on_disk import save_tokenizer
from tests.policies.machines import DESKTOP, GIB, LLAMA_3_70B, sizes
from tightrun.cli.known import KnownHere
from tightrun.cli.known_files import keep
from tightrun.io.job import load_job
from tightrun.policies.forms import recipe_of
from tightrun.policies.profile import Known, ModelProfile

ROWS = 200_000
MOST_RSS_BYTES = 500 * 2**20
SHAREGPT_BYTES, SIGMA = 344 * 4, 0.9
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
CARD = {
    "device": "emulated",
    "gpu_memory": "24GiB",
    "cpu_memory": "128GiB",
    "h2d": "25GB/s",
    "d2h": "25GB/s",
    "disk_read": "3GB/s",
}
PROCESS = """
import sys
from tightrun.cli.main import main
try:
    main(["plan", "--json", "job.yaml"])
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {"torch", "transformers", "pandas"} & set(sys.modules)
assert not heavy, heavy
status = open("/proc/self/status").read()
print(1024 * int(status.partition("VmHWM:")[2].split()[0]))
"""


def write_prompts(path: Path) -> None:
    """Log-normal lengths with ShareGPT's mean, cut at four times it."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(SHAREGPT_BYTES) - SIGMA**2 / 2, SIGMA, ROWS)
    lengths = np.clip(lengths, 8, 4 * SHAREGPT_BYTES).astype(int)
    text = "the quick brown fox jumps over the lazy dog " * 200
    starts = rng.integers(0, 1000, ROWS)
    prompts = [text[a : a + n] for a, n in zip(starts, lengths, strict=True)]
    ids = [f"row-{i}" for i in range(ROWS)]
    pq.write_table(pa.table({"id": ids, "prompt": prompts}), path, compression="zstd")


@pytest.mark.slow
def test_200_000_prompts_for_a_70b_model_are_planned_without_torch_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = save_tokenizer(tmp_path / "model")
    (model / "config.json").write_text(json.dumps(CONFIG))
    write_prompts(tmp_path / "in.parquet")
    job = {
        "model": "model",
        "input": {"path": "in.parquet"},
        "output": {"path": "out"},
        "hardware": CARD,
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    shape = LLAMA_3_70B
    weights = sizes(shape)
    profile = ModelProfile(
        "LlamaForCausalLM", "bfloat16", shape, weights, weights.layers, recipe_of(shape), GIB
    )
    notes: list[str] = []
    here = KnownHere(load_job(tmp_path / "job.yaml"), notes.append)
    keep(here.streamed, Known(profile, DESKTOP), notes.append)
    run = subprocess.run(
        [sys.executable, "-c", PROCESS], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    planned, rss = run.stdout.splitlines()
    found = json.loads(planned)
    assert found["input"]["rows"] == ROWS
    assert found["input"]["sampled_rows"] == 1000
    assert found["placement"]["streamed_layers"] > 0
    assert found["predicted"]["seconds"] > 0
    assert int(rss) < MOST_RSS_BYTES
    assert notes == []
