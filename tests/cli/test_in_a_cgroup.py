"""A real job under a real memory limit: it sees the limit, keeps within it, and lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from tests.cli.jobs import texts, write_rows
from tests.cli.memory_group import memory_group
from tests.cli.tiny_llama import save_tiny_llama
from tightrun.cli.exit_codes import ExitCode

MIB = 2**20
LIMIT = 1024 * MIB
ROWS = 200
PROMPT = "abcdefgh" * 57


def save_wide_llama(folder: Path) -> Path:
    """A tiny model whose context takes 16 KiB a token: 200 rows would take 1.6 GiB at once."""
    save_tiny_llama(folder)
    config = LlamaConfig.from_pretrained(folder)
    config.num_attention_heads = config.num_key_value_heads = 16
    config.head_dim = 64
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    rows = [{"id": f"r{n}", "prompt": f"{PROMPT}{n:04d}"} for n in range(ROWS)]
    job = {
        "model": str(save_wide_llama(tmp_path / "model")),
        "input": {"path": str(write_rows(tmp_path / "in.jsonl", rows))},
        "sampling": {"max_tokens": 4, "ignore_eos": True},
        "output": {"path": str(tmp_path / "out")},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


@pytest.mark.slow
def test_a_job_stays_alive_within_the_limit_of_its_group(job_file: Path) -> None:
    with memory_group(LIMIT, f"tightrun-test-{os.getpid()}") as group:
        if group is None:
            pytest.skip(
                "no control group with a memory limit can be made here: neither below one "
                "of our own nor with systemd-run"
            )
        source = "from tightrun.cli.main import main; main()"
        command = [*group.prefix, sys.executable, "-c", source, str(job_file)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert run.returncode == ExitCode.FINISHED, run.stderr
        assert group.kills() == 0
        assert (group.peak_bytes() or 0) <= LIMIT
    out = job_file.parent / "out"
    assert len(texts(out)) == ROWS
    plan = json.loads((out / "_tightrun" / "manifest.json").read_text())["plan"]
    assert f"the cgroup's {group.words}" in "\n".join(plan["description"])
