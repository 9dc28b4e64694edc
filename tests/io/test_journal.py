"""The journal: what was written reads back, and a torn end costs only what was torn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.io.finished_rows import bad_row, completions, good_row
from tightrun.core import Completion, RowError, TokenLogprob
from tightrun.io.durable import Disk
from tightrun.io.journal import (
    FINISHED_ROW,
    Finished,
    RowJournal,
    decode_row,
    encode_row,
    read_frames,
)


def journal_of(folder: Path, rows: list[Completion], span: range) -> RowJournal:
    journal = RowJournal(Disk(), folder / "rows.bin", span)
    for row in rows:
        journal.append(Finished(row, 1_700_000_000))
    return journal


@settings(deadline=None)
@given(completions(row=3))
def test_a_finished_row_reads_back_as_it_was(row: Completion) -> None:
    assert decode_row(encode_row(Finished(row, 12))) == Finished(row, 12)


def test_a_logprob_that_is_not_finite_reads_back_as_nan() -> None:
    token = TokenLogprob(1, "a", -math.inf, ((2, "b", math.nan),))
    row = good_row(0, logprobs=(token,))
    read = decode_row(encode_row(Finished(row, 0))).completion.samples[0].logprobs
    assert read is not None
    assert math.isnan(read[0].logprob)
    assert math.isnan(read[0].top[0][2])


def test_a_text_that_is_not_unicode_is_mended_not_lost() -> None:
    row = Completion(0, "file-\udcff", error=RowError("bad_row", "pair \ud83d\ude00"))
    read = decode_row(encode_row(Finished(row, 0))).completion
    assert read.id == "file-\N{REPLACEMENT CHARACTER}"
    assert read.error == RowError("bad_row", "pair \N{GRINNING FACE}")


@settings(deadline=None)
@given(st.permutations(range(20, 30)))
def test_rows_come_back_in_input_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    journal = journal_of(
        tmp_path_factory.mktemp("journal"), [good_row(i) for i in order], range(20, 30)
    )
    read = journal.read(range(22, 28))
    journal.abandon()
    assert [finished.completion for finished in read] == [good_row(i) for i in range(22, 28)]


def test_a_journal_knows_how_many_rows_are_missing_and_failed(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(0), bad_row(2)], range(4))
    assert (journal.missing, journal.failed) == (2, 1)


def test_a_row_that_finishes_twice_is_our_mistake(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(0)], range(4))
    with pytest.raises(AssertionError, match="row 0 finished twice"):
        journal.append(Finished(good_row(0), 0))


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_of_another_shard_is_our_mistake(tmp_path: Path, row: int) -> None:
    journal = journal_of(tmp_path, [], range(4))
    with pytest.raises(AssertionError, match="is elsewhere"):
        journal.append(Finished(good_row(row), 0))


def test_pieces_are_bounded_in_rows_and_in_bytes(tmp_path: Path) -> None:
    rows = [good_row(i, "x" * (5000 if i == 3 else 100)) for i in range(8)]
    journal = journal_of(tmp_path, rows, range(8))
    pieces = list(journal.pieces(range(8), max_rows=3, max_bytes=1000))
    assert pieces == [range(0, 3), range(3, 4), range(4, 7), range(7, 8)]


def test_a_file_cut_at_any_byte_keeps_every_row_before_the_cut(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(3)]
    journal = journal_of(tmp_path, rows, range(3))
    journal.close()
    whole = (tmp_path / "rows.bin").read_bytes()
    kept = []
    for size in range(len(whole) + 1):
        (tmp_path / "cut.bin").write_bytes(whole[:size])
        frames = list(read_frames(tmp_path / "cut.bin"))
        assert [decode_row(payload).completion for _, payload in frames] == rows[: len(frames)]
        assert all(kind == FINISHED_ROW for kind, _ in frames)
        kept.append(len(frames))
    assert kept == sorted(kept)
    assert kept[-1] == 3
    assert kept[-2] == 2


def test_a_damaged_row_ends_the_file(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(i) for i in range(3)], range(3))
    journal.close()
    content = bytearray((tmp_path / "rows.bin").read_bytes())
    content[content.index(b"output 1")] ^= 1
    (tmp_path / "rows.bin").write_bytes(content)
    assert len(list(read_frames(tmp_path / "rows.bin"))) == 1


def test_a_row_damaged_on_the_disk_is_an_error_not_a_wrong_row(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(0)], range(1))
    journal.sync()
    content = bytearray((tmp_path / "rows.bin").read_bytes())
    content[-3] ^= 1
    (tmp_path / "rows.bin").write_bytes(content)
    with pytest.raises(OSError, match="row 0 does not read back"):
        journal.read(range(1))


def test_a_file_that_is_no_journal_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.bin").write_bytes(b"something else entirely, quite long")
    assert list(read_frames(tmp_path / "rows.bin")) == []
