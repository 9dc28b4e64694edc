"""What a job file may say, and what it then is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from tightrun.core import SamplingParams
from tightrun.io.job import Job, JobError, Machine, load_job, load_machine
from tightrun.io.quantities import Amount, Tolerance

SMALLEST = {"model": "owner/name", "input": {"path": "in.jsonl"}, "output": {"path": "out/"}}

EXAMPLE = """\
model: Qwen/Qwen3-30B-A3B
input:
  path: data/*.parquet
  format: auto
  prompt: question
  system: You are terse.
  chat: auto
  id: custom_id
sampling: {max_tokens: 256, temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1,
           presence_penalty: 0, frequency_penalty: 0, stop: [], stop_token_ids: [], seed: 0, n: 1,
           logprobs: 0, min_tokens: 0, ignore_eos: false}
output: {path: out/, format: parquet, keep_columns: all, shard_rows: 10000}
limits: {gpu_memory: 90%, cpu_memory: 80%, disk: auto, context: auto, time: none, max_failed: 5%}
hardware: auto
policy: adaptive
on_overflow: error
"""


def load(text: str, folder: Path, **keywords: Any) -> Job:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return load_job(path, env={}, **keywords)


def load_with(changes: Mapping[str, Any]) -> Job:
    return load_job({**SMALLEST, **changes}, env={})


def test_the_documented_example_loads_and_says_the_defaults(tmp_path: Path) -> None:
    explicit = load(EXAMPLE, tmp_path).resolved()
    short = "model: Qwen/Qwen3-30B-A3B\ninput: {path: data/*.parquet, prompt: question, "
    short += "system: You are terse., id: custom_id}\noutput: {path: out/}\n"
    assert load(short, tmp_path).resolved() == explicit


def test_sampling_becomes_the_params_of_the_engine() -> None:
    assert load_with({}).sampling.params() == SamplingParams()


def test_logprobs_0_reports_nothing_and_others_are_kept() -> None:
    assert load_with({"sampling": {"logprobs": 0}}).sampling.params().logprobs is None
    assert load_with({"sampling": {"logprobs": 5}}).sampling.params().logprobs == 5


@pytest.mark.parametrize("stop", ["###", ["###"], ("###",)])
def test_stop_is_a_text_or_a_list(stop: object) -> None:
    assert load_with({"sampling": {"stop": stop}}).sampling.params().stop == ("###",)


def test_limits_are_numbers_with_none_for_what_is_left_open() -> None:
    limits = load_with({}).limits
    assert (limits.gpu_memory, limits.cpu_memory) == (Amount(share=0.9), Amount(share=0.8))
    assert (limits.disk, limits.context, limits.time) == (None, None, None)
    assert limits.max_failed == Tolerance(share=0.05)


def test_limits_take_units() -> None:
    given = {"gpu_memory": "24GiB", "disk": 0, "context": "32_768", "time": "3h", "max_failed": 10}
    limits = load_with({"limits": given}).limits
    assert (limits.gpu_memory.value, limits.disk) == (24 * 2**30, Amount(bytes=0))
    assert (limits.context, limits.time) == (32768, 10800.0)
    assert limits.max_failed == Tolerance(count=10)


def test_max_failed_none_is_no_limit() -> None:
    assert load_with({"limits": {"max_failed": "none"}}).limits.max_failed is None


def test_model_is_a_name_or_a_mapping() -> None:
    mapping = load_with({"model": {"path": "owner/name", "dtype": "float32"}}).model
    assert (mapping.path, mapping.dtype) == ("owner/name", "float32")
    assert load_with({"model": "owner/name"}).model.path == "owner/name"


def test_policy_is_a_name_or_a_mapping() -> None:
    given = {"name": "static", "recompute": 0.5, "recompute_form": "tokens", "batches": 4}
    policy = load_with({"policy": given}).policy
    assert (policy.name, policy.recompute, policy.recompute_form) == ("static", 0.5, "tokens")
    assert (policy.batch_size, policy.batches) == (None, 4)
    assert load_with({"policy": "sync"}).policy.name == "sync"


@pytest.mark.parametrize(
    ("given", "name"),
    [("auto", "auto"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3")],
)
def test_hardware_is_a_device(given: str, name: str) -> None:
    assert load_with({"hardware": given}).hardware == name


MACHINE = """\
device: emulated
gpu_memory: 400MiB
h2d: 500MB/s
latency_us: 10
flops: {64: 30TFLOP/s, 2048: 120TFLOP/s}
"""


def test_hardware_is_a_machine(tmp_path: Path) -> None:
    indented = "".join(f"  {line}\n" for line in MACHINE.splitlines())
    text = EXAMPLE.replace("hardware: auto\n", f"hardware:\n{indented}")
    found = load(text, tmp_path).hardware
    assert isinstance(found, Machine)
    assert (found.device, found.gpu_memory, found.h2d) == ("emulated", 400 * 2**20, 5e8)
    assert (found.latency_us, found.flops) == (10.0, {64: 3e13, 2048: 1.2e14})


def test_a_machine_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(MACHINE)
    assert load_machine(path, env={}).gpu_memory == 400 * 2**20


def test_an_error_in_a_machine_s_file_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(MACHINE.replace("h2d", "h2s"))
    with pytest.raises(JobError) as error:
        load_machine(path, env={})
    assert str(error.value) == f"{path}:3:1: h2s: unknown key; did you mean 'h2d'?"


def test_a_header_with_nothing_below_it_means_the_defaults(tmp_path: Path) -> None:
    text = "model: o/n\ninput: {path: x.jsonl}\noutput: {path: out}\nsampling:\nlimits:\n"
    job = load(text + "policy:\nhardware:\n", tmp_path)
    assert job.resolved() == load(text.partition("sampling")[0], tmp_path).resolved()


def test_paths_are_resolved_against_the_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    text = "model: models/tiny\ninput: {path: [in.jsonl, ../x/*.parquet]}\noutput: {path: out/}\n"
    job = load(text, tmp_path)
    assert job.model.path == str(tmp_path / "models" / "tiny")
    assert job.input.path == (str(tmp_path / "in.jsonl"), f"{tmp_path}/../x/*.parquet")
    assert job.output.path == str(tmp_path / "out")
    assert (job.path, job.base) == (tmp_path / "job.yaml", tmp_path)


def test_paths_of_a_mapping_are_resolved_against_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = load_with({"input": {"path": Path("in.jsonl")}})
    assert job.input.path == (str(tmp_path / "in.jsonl"),)
    assert (job.path, job.base) == (None, tmp_path)


@pytest.mark.parametrize("path", ["s3://bucket/x.parquet", "hf://datasets/a/b/*.parquet", "-"])
def test_urls_and_standard_input_are_left_alone(path: str) -> None:
    assert load_with({"input": {"path": path}}).input.path == (path,)


def test_an_output_url_is_left_alone() -> None:
    assert load_with({"output": {"path": "s3://bucket/out/"}}).output.path == "s3://bucket/out/"


def test_home_is_the_environment_s(tmp_path: Path) -> None:
    job = load_job({**SMALLEST, "input": {"path": "~/in.jsonl"}}, env={"HOME": str(tmp_path)})
    assert job.input.path == (str(tmp_path / "in.jsonl"),)


def test_brackets_in_the_folder_s_name_do_not_match(tmp_path: Path) -> None:
    folder = tmp_path / "run[1]"
    folder.mkdir()
    job = load("model: o/n\ninput: {path: '*.jsonl'}\noutput: {path: out}\n", folder)
    assert job.input.path == (f"{tmp_path}/run[[]1]/*.jsonl",)


def test_a_model_that_is_no_folder_is_a_name_on_the_hub(tmp_path: Path) -> None:
    assert load(EXAMPLE, tmp_path).model.path == "Qwen/Qwen3-30B-A3B"


@pytest.mark.parametrize("name", ["./missing", "/no/such/folder", "a/b/c", "two words", "~/none"])
def test_a_model_that_can_be_neither_is_refused(name: str) -> None:
    with pytest.raises(JobError, match=r"model\.path: there is no folder .*no name on the hub"):
        load_with({"model": name})


def test_a_model_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"")
    with pytest.raises(JobError, match="is a file; name the folder that holds it"):
        load_with({"model": str(tmp_path / "m.safetensors")})


def test_a_dataset_stands_instead_of_a_path() -> None:
    job = load_with({"input": {"dataset": "owner/set", "name": "main", "split": "train"}})
    assert (job.input.path, job.input.dataset, job.input.split) == ((), "owner/set", "train")


def test_a_file_with_a_byte_order_mark_loads(tmp_path: Path) -> None:
    assert load("\ufeff" + EXAMPLE, tmp_path).policy.name == "adaptive"


def test_variables_of_the_environment_are_put_in(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(EXAMPLE.replace("max_tokens: 256", "max_tokens: '${N}'"))
    assert load_job(path, env={"N": "64"}).sampling.max_tokens == 64


def test_a_mapping_is_taken_as_it_is() -> None:
    job = load_with({"input": {"path": "in.jsonl", "template": "${x}"}})
    assert job.input.template == "${x}"


def test_a_job_is_itself() -> None:
    job = load_with({})
    assert load_job(job, env={}).resolved() == job.resolved()


def test_a_job_is_fixed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_with({}).sampling.max_tokens = 3


def test_loading_changes_no_mapping() -> None:
    source: dict[str, Any] = {**SMALLEST, "sampling": {"n": 1}}
    load_job(source, overrides=["sampling.n=2", "policy.batches=3"], env={})
    assert source == {**SMALLEST, "sampling": {"n": 1}}


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, tightrun.io.job; print(*sys.modules)"
    loaded = run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "datasets", "pyarrow", "numpy", "fsspec"}
    assert not heavy & set(loaded.split())
