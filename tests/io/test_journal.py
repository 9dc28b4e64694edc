"""The journal of a shard: what was written reads back, and a torn end costs only what was torn."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.io.finished_rows import bad_row, good_row
from tightrun.core import Completion
from tightrun.io.durable import Disk
from tightrun.io.journal import RowJournal, read_journal
from tightrun.io.row_record import Finished

SPAN = range(20, 30)


def journal_of(folder: Path, rows: list[Completion], span: range = SPAN) -> RowJournal:
    journal = RowJournal(Disk(), folder / "rows.bin", span, "job")
    for row in rows:
        journal.append(Finished(row, 1_700_000_000))
    return journal


def written(folder: Path, rows: list[Completion]) -> Path:
    """A journal file of these rows, closed."""
    journal_of(folder, rows).close()
    return folder / "rows.bin"


def found(path: Path) -> list[Completion]:
    """The rows that a journal that is gone on with has."""
    journal = RowJournal(Disk(), path, SPAN, "job")
    rows = [row for row in SPAN if journal.done(range(row, row + 1))]
    read = [journal.read(range(row, row + 1))[0].completion for row in rows]
    journal.close()
    return read


@settings(deadline=None)
@given(st.permutations(SPAN))
def test_rows_come_back_in_input_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    journal = journal_of(tmp_path_factory.mktemp("journal"), [good_row(i) for i in order])
    read = journal.read(range(22, 28))
    journal.abandon()
    assert [finished.completion for finished in read] == [good_row(i) for i in range(22, 28)]


def test_a_journal_knows_how_many_rows_are_done_and_why_others_failed(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(20), bad_row(22, "oom"), bad_row(23)])
    assert journal.done(SPAN) == 3
    assert journal.errors(SPAN) == {"oom": 1, "bad_row": 1}
    assert journal.errors(range(20, 23)) == {"oom": 1}


def test_a_row_that_finishes_twice_is_our_mistake(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(20)])
    with pytest.raises(AssertionError, match="row 20 finished twice"):
        journal.append(Finished(good_row(20), 0))


@pytest.mark.parametrize("row", [19, 30])
def test_a_row_of_another_shard_is_our_mistake(tmp_path: Path, row: int) -> None:
    journal = journal_of(tmp_path, [])
    with pytest.raises(AssertionError, match="is elsewhere"):
        journal.append(Finished(good_row(row), 0))


def test_pieces_are_bounded_in_rows_and_in_bytes(tmp_path: Path) -> None:
    rows = [good_row(i, "x" * (5000 if i == 3 else 100)) for i in range(8)]
    journal = journal_of(tmp_path, rows, range(8))
    pieces = list(journal.pieces(range(8), max_rows=3, max_bytes=1000))
    assert pieces == [range(0, 3), range(3, 4), range(4, 7), range(7, 8)]


def test_a_journal_is_gone_on_with(tmp_path: Path) -> None:
    path = written(tmp_path, [good_row(21), bad_row(25)])
    journal_of(tmp_path, [good_row(20)]).close()
    assert found(path) == [good_row(20), good_row(21), bad_row(25)]


def test_a_file_cut_at_any_byte_keeps_every_row_before_the_cut(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(20, 23)]
    whole = written(tmp_path, rows).read_bytes()
    cut, kept = tmp_path / "cut.bin", []
    for size in range(len(whole) + 1):
        cut.write_bytes(whole[:size])
        reading = read_journal(cut, SPAN, "job")
        if not reading.ours:
            assert size < len(whole) // 3
            continue
        kept.append(len(found(cut)))
        assert found(cut) == rows[: kept[-1]]
        assert (reading.complaint is None) == (reading.good_bytes == size)
    assert kept == sorted(kept)
    assert kept[-2:] == [2, 3]


def test_after_a_torn_end_the_journal_is_gone_on_with_from_the_last_whole_row(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, [good_row(20), good_row(21)])
    path.write_bytes(path.read_bytes()[:-5])
    journal_of(tmp_path, [bad_row(21), good_row(22)]).close()
    assert found(path) == [good_row(20), bad_row(21), good_row(22)]


def test_what_stands_behind_a_damaged_row_is_not_trusted_and_that_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, [good_row(i) for i in range(20, 23)])
    content = bytearray(path.read_bytes())
    content[content.index(b"output 21")] ^= 1
    path.write_bytes(content)
    complaint = read_journal(path, SPAN, "job").complaint
    assert complaint is not None
    assert complaint.startswith("rows.bin is damaged at byte ")
    assert found(path) == [good_row(20)]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_whatever_bits_flip_no_wrong_row_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    rows = [bad_row(i) if i % 3 == 0 else good_row(i) for i in SPAN]
    path = written(tmp_path_factory.mktemp("journal"), rows)
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    reading = read_journal(path, SPAN, "job")
    if reading.ours:
        kept = found(path)
        assert kept == rows[: len(kept)]
        assert len(kept) < len(rows) or bytes(content) == path.read_bytes()


def test_a_row_damaged_on_the_disk_is_an_error_not_a_wrong_row(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [good_row(20)])
    journal.sync()
    path = tmp_path / "rows.bin"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="row 20 does not read back"):
        journal.read(range(20, 21))


@pytest.mark.parametrize(("span", "job"), [(range(20, 31), "job"), (SPAN, "another job")])
def test_a_journal_of_other_rows_or_of_another_job_is_known_as_such(
    tmp_path: Path, span: range, job: str
) -> None:
    assert not read_journal(written(tmp_path, [good_row(20)]), span, job).ours


def test_a_row_that_stands_twice_counts_as_it_stood_first(tmp_path: Path) -> None:
    path = written(tmp_path, [good_row(20)])
    once = path.read_bytes()
    path.unlink()
    other = written(tmp_path, [bad_row(20)]).read_bytes()
    empty = tmp_path / "empty"
    empty.mkdir()
    start = len(written(empty, []).read_bytes())
    path.write_bytes(once + other[start:])
    assert found(path) == [good_row(20)]
