"""What is said about a job file that is wrong: where, what, and what would be right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tightrun.io.job import JobError, load_job

GOOD = "model: o/n\ninput: {path: in.jsonl}\noutput: {path: out/}\n"


def messages(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **env: str) -> list[str]:
    (folder / "job.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    with pytest.raises(JobError) as error:
        load_job("job.yaml", env=env)
    assert str(error.value).splitlines() == [str(problem) for problem in error.value.errors]
    return str(error.value).splitlines()


def said(section: str, changes: dict[str, Any]) -> list[str]:
    """The messages on a mapping that is good but for these values of one section."""
    good: dict[str, Any] = {
        "model": {"path": "o/n"},
        "input": {"path": "in.jsonl"},
        "output": {"path": "out/"},
    }
    job = {**good, section: {**good.get(section, {}), **changes}}
    with pytest.raises(JobError) as error:
        load_job({key: value for key, value in job.items() if value != {}}, env={})
    return str(error.value).splitlines()


def test_the_documented_error_is_said_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "model: o/n\ninput:\n  path: in.jsonl\n  formt: auto\noutput: {path: out/}\n"
    assert messages(text, tmp_path, monkeypatch) == [
        "job.yaml:4:3: input.formt: unknown key; did you mean 'format'?"
    ]


def test_all_errors_of_a_file_are_told_at_once_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """\
model: {path: o/n, dtype: bf16}
input: {path: in.jsonl, prompt: a, template: b}
sampling:
  temperature: -1
  max_tokens: ${UNSET}
  top_p: 0
  top_p: 1
output: {path: out.jsonl}
polcy: sync
"""
    assert [line.split(": ")[0:2] for line in messages(text, tmp_path, monkeypatch)] == [
        ["job.yaml:1:27", "model.dtype"],
        ["job.yaml:2:46", "input.template"],
        ["job.yaml:4:16", "sampling.temperature"],
        ["job.yaml:5:15", "sampling.max_tokens"],
        ["job.yaml:6:10", "sampling.top_p"],
        ["job.yaml:7:3", "sampling.top_p"],
        ["job.yaml:8:16", "output.path"],
        ["job.yaml:9:1", "polcy"],
    ]


def test_a_bad_value_is_pointed_at_itself_not_at_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD + "sampling:\n  stop:\n    - fine\n    - 3\n"
    assert messages(text, tmp_path, monkeypatch) == [
        "job.yaml:7:7: sampling.stop[1]: must be a text, not the number 3; put it in quotes"
    ]


def test_a_bad_machine_is_pointed_at_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD + "hardware:\n  device: cuda\n  flops: {64: fast}\n"
    assert messages(text, tmp_path, monkeypatch) == [
        "job.yaml:6:15: hardware.flops[64]: 'fast' is not a rate such as 30TFLOP/s or 800GFLOP/s"
    ]


def test_a_missing_section_is_named_with_what_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert messages("model: o/n\ninput: {path: x}\noutput: {}\n", tmp_path, monkeypatch) == [
        "job.yaml:3:9: output.path: missing. "
        "Folder for shards and report; for JSON lines also a single .jsonl file."
    ]


def test_a_section_that_is_no_mapping_is_shown_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.replace("{path: out/}", "out/")
    assert messages(text, tmp_path, monkeypatch) == [
        "job.yaml:3:9: output: must be a mapping such as {path: ...}, not the text 'out/'"
    ]


def test_a_required_key_without_a_value_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert messages(GOOD.replace("out/", "~"), tmp_path, monkeypatch) == [
        "job.yaml:3:16: output.path: has no value; must be a text"
    ]


def test_an_unset_variable_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("o/n", "${MODEL}")
    assert messages(text, tmp_path, monkeypatch) == [
        "job.yaml:1:8: model: the environment variable MODEL is not set; "
        "set it, or write ${MODEL:-default}"
    ]


def test_a_variable_that_must_stay_text_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.replace("o/n", "{path: o/n, revision: '${REV}'}")
    assert messages(text, tmp_path, monkeypatch, REV="12") == [
        "job.yaml:1:30: model.revision: must be a text, not the number 12; write !!str ${REV}"
    ]


def test_a_secret_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("o/n", "${HF_TOKEN}")
    assert messages(text, tmp_path, monkeypatch, HF_TOKEN="not a model") == [
        "job.yaml:1:8: model.path: does not accept ${HF_TOKEN}"
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("max_token", "'sampling.max_tokens'"),
        ("max_new_tokens", "'sampling.max_tokens'"),
        ("batch_size", "'policy.batch_size'"),
        ("gpu_memory_utilization", "'limits.gpu_memory'"),
        ("Model", "'model'"),
        ("on-overflow", "'on_overflow'"),
        ("path", "'model.path', 'input.path' or 'output.path'"),
        ("device", "'hardware.device'"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(key: str, meant: str) -> None:
    with pytest.raises(JobError) as error:
        load_job({"model": "o/n", "input": {"path": "x"}, "output": {"path": "o"}, key: 1}, env={})
    assert str(error.value) == f"job: {key}: unknown key; did you mean {meant}?"


@pytest.mark.parametrize("key", [5, None, 1.5, True, (1, 2), "<name>", "[key]", ""])
def test_a_key_that_is_no_word_is_unknown_like_any_other(key: object) -> None:
    (line,) = said("input", {key: 1})  # type: ignore[dict-item]
    assert "unknown key; " in line


def test_a_form_of_hardware_is_no_key() -> None:
    (line,) = said("hardware", {"device": "cpu", "<machine>": 1})
    assert line.startswith("job: hardware.<machine>: unknown key; ")


def test_a_bad_number_of_rows_is_pointed_at_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD + "hardware:\n  device: cuda\n  flops: {many: 30TFLOP/s}\n"
    assert messages(text, tmp_path, monkeypatch) == [
        "job.yaml:6:11: hardware.flops.many: 'many' is not a whole number"
    ]


def test_a_key_like_no_other_is_answered_with_what_there_is() -> None:
    assert said("output", {"zzz": 1}) == [
        "job: output.zzz: unknown key; known here: path, format, keep_columns, shard_rows"
    ]


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("sampling", "temperature", -0.1, "must be at least 0, not the number -0.1"),
        ("sampling", "temperature", "0.7", "must be a number, not the text '0.7'; remove the"),
        ("sampling", "temperature", True, "must be a number, not true"),
        ("sampling", "temperature", float("nan"), "must be a finite number, not the number nan"),
        ("sampling", "temperature", None, "has no value; must be a number, or remove the line"),
        ("sampling", "top_p", 0, "must be more than 0, not the number 0"),
        ("sampling", "top_p", 1.1, "must be at most 1, not the number 1.1"),
        ("sampling", "top_k", -1, "must be at least 0, not the number -1"),
        ("sampling", "min_p", 2, "must be at most 1"),
        ("sampling", "repetition_penalty", 0, "must be more than 0"),
        ("sampling", "presence_penalty", 2.1, "must be at most 2"),
        ("sampling", "frequency_penalty", -2.1, "must be at least -2"),
        ("sampling", "max_tokens", 0, "must be at least 1"),
        ("sampling", "max_tokens", True, "true is not a whole number"),
        ("sampling", "max_tokens", "8k", "'8k' is not a whole number"),
        ("sampling", "n", 0, "must be at least 1"),
        ("sampling", "n", 1.5, "1.5 is not a whole number"),
        ("sampling", "logprobs", 21, "must be at most 20"),
        ("sampling", "min_tokens", 300, "300 is more than max_tokens, 256; raise max_tokens"),
        ("sampling", "seed", 2**63, "must be less than"),
        ("sampling", "stop", "", "is an empty text"),
        ("sampling", "stop", 5, "must be a text or a list of texts"),
        ("sampling", "stop_token_ids", [-1], "must be at least 0"),
        ("sampling", "stop_token_ids", 5, "must be a list, not the number 5"),
        ("sampling", "ignore_eos", "no", "must be true or false, not the text 'no'; write false"),
        ("model", "dtype", "bf16", "did you mean 'bfloat16'?"),
        ("model", "dtype", "int8", "must be auto, float32, bfloat16 or float16, not the text"),
        ("model", "trust_remote_code", 1, "must be true or false, not the number 1"),
        ("input", "path", [], "needs a path (file, folder, glob or list) or a dataset"),
        ("input", "dataset", "o/n", "stands beside path; give one of the two"),
        ("input", "split", "train", "belongs to dataset, and there is none; remove this line"),
        ("input", "format", "openai_batch", "did you mean 'openai-batch'?"),
        ("input", "format", "json", "did you mean 'jsonl'?"),
        ("input", "format", "parquet", "is parquet, but the path is"),
        ("input", "chat", "no", "must be auto, true or false, not the text 'no'; did you mean 'fa"),
        ("input", "prompt", 5, "must be a text, not the number 5; put it in quotes"),
        ("input", "prompt", " ", "is an empty text"),
        ("output", "path", "-", "output cannot go to standard output; write a folder such as out/"),
        ("output", "path", "o.jsonl", "add format: jsonl or format: openai-batch, or name"),
        ("output", "path", "o.jsonl.gz", "output is not compressed; write a name that ends in .js"),
        ("output", "path", "o.parquet", "Parquet output is a folder of shards; name a folder"),
        ("output", "shard_rows", 0, "must be at least 1"),
        ("output", "keep_columns", "date", "must be all, none or a list of columns such as [date]"),
        ("limits", "gpu_memory", 24, "24 has no unit; write a share such as 90%, or a size"),
        ("limits", "gpu_memory", "0%", "must be more than nothing"),
        ("limits", "disk", "x", "is not a share such as 90%, or a size such as 24GiB"),
        ("limits", "context", "x", "'x' is not a whole number; or write auto"),
        ("limits", "context", 0, "must be at least 1, not 0; or write auto"),
        ("limits", "time", 3600, "has no unit; write a time such as 3h, 90m, 1h30m or 12:00:00"),
        ("limits", "max_failed", "x", "is not a share such as 5%, a number of rows, or none"),
        ("limits", "max_failed", -1, "is not a share such as 5%, a number of rows, or none"),
        ("policy", "name", "adaptve", "did you mean 'adaptive'?"),
        ("policy", "recompute", 1.5, "is not between 0% and 100%"),
        ("policy", "recompute_form", "x", "must be auto, tokens or activations"),
        ("hardware", "device", "gpu", "must be emulated, cuda or cpu"),
        ("hardware", "gpu_memory", "1GiB", "missing. emulated: the CPU computes behind links"),
    ],
)
def test_a_bad_value_is_answered_with_what_is_accepted(
    section: str, key: str, value: object, message: str
) -> None:
    lines = said(section, {key: value})
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "mps", ""])
def test_an_unknown_device_is_answered_with_the_known_ones(name: str) -> None:
    job = {"model": "o/n", "input": {"path": "x"}, "output": {"path": "o"}, "hardware": name}
    with pytest.raises(JobError, match=r"is not auto, cpu, cuda, cuda:N or a machine"):
        load_job(job, env={})


def test_an_emulated_device_needs_the_size_of_its_memory() -> None:
    assert said("hardware", {"device": "emulated"}) == [
        "job: hardware: an emulated device needs gpu_memory, such as 400MiB"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "a", "messages": "b"}, "input.messages: stands beside prompt; give at most"),
        ({"template": "a", "messages": "b"}, "input.template: stands beside messages; give at"),
        ({"chat": False, "system": "x"}, "input.system: needs the chat template that chat: false"),
        ({"chat": False, "messages": "x"}, "input.messages: needs the chat template that chat: f"),
        ({"format": "openai-batch", "prompt": "x"}, "input.prompt: openai-batch lines bring their"),
        ({"format": "openai-batch", "system": "x"}, "input.system: openai-batch lines bring their"),
        ({"path": None, "dataset": "o/n", "format": "jsonl"}, "input.format: is for files; a data"),
        ({"path": ["-", "x.jsonl"]}, "input.path: - (standard input) cannot be read beside files"),
        ({"path": "-", "format": "parquet"}, "input.format: standard input is read as JSON lines"),
        ({"path": "x.parquet", "format": "openai-batch"}, "input.format: is openai-batch, but the"),
    ],
)
def test_inputs_that_do_not_go_together_say_which(changes: dict[str, Any], message: str) -> None:
    lines = said("input", changes)
    assert len(lines) == 1
    assert lines[0].startswith(f"job: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "openai-batch", "keep_columns": ["a"]}, "output.keep_columns: openai-batch li"),
        ({"format": "jsonl", "path": "o.parquet"}, "output.path: ends in .parquet but format is j"),
    ],
)
def test_outputs_that_do_not_go_together_say_which(changes: dict[str, Any], message: str) -> None:
    lines = said("output", changes)
    assert len(lines) == 1
    assert lines[0].startswith(f"job: {message}")


def test_output_must_not_be_the_input() -> None:
    job = {"model": "o/n", "input": {"path": "data/"}, "output": {"path": "data"}}
    with pytest.raises(JobError, match=r"^job: output\.path: is the input as well; name another"):
        load_job(job, env={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "job.yaml: is empty; `tightrun init` writes a starter"),
        (b"# only a comment\n", "job.yaml: is empty; `tightrun init` writes a starter"),
        (b"- a\n", "job.yaml:1:1: must hold a mapping (key: value), not a list"),
        (b"hello\n", "job.yaml:1:1: must hold a mapping (key: value), not the text 'hello'"),
        (b"a: 1\nb: \xff\n", "job.yaml:2:4: is not UTF-8 text; save it as UTF-8"),
        (b"a" * (2**20 + 1), "job.yaml: is larger than 1 MiB; is this a job file?"),
        (b"a: 1\n--- \nb: 2\n", "job.yaml:2:1: a second document begins here; one file is one"),
        (b"PAR1\x00\x15", "job.yaml:1:5: the character 0x0 cannot be in YAML; is this a job f"),
    ],
)
def test_a_file_that_is_no_job_file_says_so(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError) as error:
        load_job("job.yaml", env={})
    assert str(error.value).startswith(message)


def test_a_file_that_is_not_there_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such file; `tightrun init` writes a starter"):
        load_job(tmp_path / "none.yaml", env={})


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read: Is a directory"):
        load_job(tmp_path, env={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    with pytest.raises(JobError, match="cannot be read: Permission denied"):
        load_job(path, env={})


def test_the_text_of_a_job_is_not_a_path() -> None:
    with pytest.raises(JobError, match="give the path of a job file, or a mapping, not its text"):
        load_job(GOOD, env={})


def test_a_mapping_that_holds_itself_is_refused() -> None:
    job: dict[str, Any] = {}
    job["model"] = job
    with pytest.raises(JobError, match="nested deeper than 64 levels"):
        load_job(job, env={})
