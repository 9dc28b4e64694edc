"""Tokens of all prompts from the tokens of some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.jobs import job_of
from tests.cli.tokenizers_on_disk import CHAT, save_tokenizer
from tightrun.cli.light_tokenizer import LightTokenizer
from tightrun.cli.token_estimate import TokenEstimate, estimate_tokens, fit
from tightrun.core import Request
from tightrun.io.inputs import scan_inputs
from tightrun.io.job import load_job

LENGTHS = np.array([4, 40, 400, 4000], np.uint32)


def estimated(
    folder: Path, rows: list[dict[str, Any]], **sections: Any
) -> tuple[TokenEstimate, list[str]]:
    job = load_job(job_of(folder, rows, **sections))
    notes: list[str] = []
    scan = scan_inputs(job, spool=folder / "spool")
    return estimate_tokens(job, scan, scan.rows, notes.append), notes


def test_a_line_through_the_sample_gives_what_is_fixed_and_what_is_not() -> None:
    nbytes = np.array([10.0, 20.0, 40.0])
    found = fit(nbytes, 5 + nbytes / 4, LENGTHS)
    assert found.tokens(LENGTHS).tolist() == pytest.approx([6, 15, 105, 1005])
    assert found.error == pytest.approx(0, abs=1e-9)


def test_fewer_tokens_than_none_are_not_extrapolated() -> None:
    found = fit(np.array([10.0, 20.0]), np.array([1.0, 9.0]), LENGTHS)
    assert found.fixed == 0
    assert found.per_byte == pytest.approx(1 / 3)


def test_rows_of_one_length_are_taken_at_their_mean() -> None:
    found = fit(np.full(3, 8.0), np.array([1.0, 2.0, 3.0]), np.full(100, 8))
    assert found.tokens(np.array([8])).tolist() == [2]


def test_rows_without_a_byte_have_tokens_all_the_same() -> None:
    found = fit(np.zeros(2), np.array([3.0, 5.0]), np.zeros(100))
    assert found.tokens(np.array([0])).tolist() == [4]


def test_the_error_is_the_spread_of_estimates_from_many_samples() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(6, 0.9, 20_000).round()
    tokens = 10 + lengths / rng.normal(4, 0.5, lengths.size)
    sums, errors = [], []
    for _ in range(200):
        rows = rng.choice(lengths.size, 400, replace=False)
        found = fit(lengths[rows], tokens[rows], lengths)
        sums.append(found.tokens(lengths).sum())
        errors.append(found.error)
    assert np.std(sums) / tokens.sum() == pytest.approx(np.mean(errors), rel=0.2)


def test_a_sample_of_every_row_is_not_off() -> None:
    nbytes = np.array([10.0, 20.0, 31.0])
    assert fit(nbytes, np.array([3.0, 4.0, 9.0]), nbytes).error == 0


def test_quantiles_have_as_many_tokens_as_all_rows_in_ascending_order() -> None:
    estimate = TokenEstimate(2, 0.5, 2, 0, 1000)
    lengths = np.random.default_rng(0).integers(100, 10_000, 25_600)
    found = estimate.quantiles(lengths)
    assert len(found) == 256
    assert list(found) == sorted(found)
    assert sum(found) * 100 == pytest.approx(estimate.tokens(lengths).sum(), rel=1e-4)


def test_a_small_input_has_a_quantile_a_row() -> None:
    assert TokenEstimate(0, 1, 1, 0, 3).quantiles(np.array([30, 10, 20])) == (10, 20, 30)


def test_tokens_are_counted_with_tokenizer_json(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model")
    found, notes = estimated(tmp_path, [{"prompt": "a" * n} for n in (4, 8, 100)])
    assert (found.sampled, found.bytes_per_token, notes) == (3, 1, [])


def test_the_chat_template_is_part_of_a_prompt(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model", chat=CHAT)
    found, _ = estimated(tmp_path, [{"prompt": "a" * n} for n in (4, 8, 100)])
    assert found.fixed == pytest.approx(len("[user]") + len("[assistant]"))


def test_without_a_tokenizer_four_bytes_are_a_token_and_that_is_said(tmp_path: Path) -> None:
    found, notes = estimated(tmp_path, [{"prompt": "a" * 40}])
    assert found.tokens(np.array([40])).tolist() == [10]
    assert found.sampled == 0
    assert len(notes) == 1
    assert "no tokenizer.json" in notes[0]


def test_a_template_that_does_not_work_here_is_said_and_not_counted(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model", chat="{% nonsense %}")
    found, notes = estimated(tmp_path, [{"prompt": "a" * 40}])
    assert found.fixed == 0
    assert "does not compile" in notes[0]


def test_what_rows_may_write_is_the_mean_of_their_own(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "sampling_params": {"max_tokens": n}} for n in (10, 30)]
    assert estimated(tmp_path, rows)[0].output == 20


def test_where_rows_may_write_different_lengths_all_of_them_are_known(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "sampling_params": {"max_tokens": n}} for n in (30, 10, 50)]
    assert estimated(tmp_path, rows)[0].outputs == (10, 30, 50)


def test_where_all_rows_may_write_the_same_nothing_more_is_said(tmp_path: Path) -> None:
    assert estimated(tmp_path, [{"prompt": "a"}, {"prompt": "b"}])[0].outputs == ()


def test_a_very_long_prompt_is_counted_by_its_beginning(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model")
    job = load_job(job_of(tmp_path, [{"prompt": "a"}]))
    assert LightTokenizer(job).counts([Request(0, "x", "ab" * 100_000)]) == [200_000]


@pytest.mark.parametrize(("chat", "system"), [("auto", None), ("auto", "Be brief."), (False, None)])
def test_prompts_have_as_many_tokens_as_in_a_run(
    tmp_path: Path, chat: bool | str, system: str | None
) -> None:
    from tightrun.runtime.tokenizer import Tokenizer

    model = save_tokenizer(tmp_path / "model", chat=CHAT, begin="<s>")
    spec = {"path": str(tmp_path / "in.jsonl"), "chat": chat, "system": system}
    job = load_job(job_of(tmp_path, [{"prompt": "a"}]) | {"input": spec})
    messages = ({"role": "user", "content": "äöü"}, {"role": "assistant", "content": "b"})
    requests = [Request(0, "0", "one text"), Request(1, "1", "raw", raw=True)]
    if chat == "auto":
        requests.append(Request(2, "2", messages))
    run = Tokenizer(str(model), chat=chat, system=system)
    assert LightTokenizer(job).counts(requests) == [len(run.encode(each)) for each in requests]
