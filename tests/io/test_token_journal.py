"""The tokens of unfinished rows: they read back, and their file does not grow with the job."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.io.faulty_disk import FaultyDisk
from tightrun.core import TokenLogprob, Written
from tightrun.io.durable import Disk
from tightrun.io.token_journal import Begun, TokenJournal, read_tokens
from tightrun.io.token_record import Piece, in_records, pieces_of

scores = st.floats(-100, 0, width=32)


def part(
    row: int, tokens: list[int], first: int = 0, *, sample: int = 0, prompt: int = 9
) -> Written:
    return Written(row, sample, prompt, array("i", tokens), first)


def opened(folder: Path, begun: Begun | None = None, spare_bytes: int = 8 << 20) -> TokenJournal:
    return TokenJournal(Disk(), folder, "job", begun or {}, spare_bytes=spare_bytes)


def read(folder: Path) -> dict[tuple[int, int], list[int]]:
    """The tokens in a folder by row and sample."""
    begun, complaints = read_tokens(folder, "job")
    assert complaints == []
    return {
        (row, sample): list(piece.tokens)
        for row, samples in begun.items()
        for sample, piece in samples.items()
    }


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@st.composite
def parts(draw: st.DrawFn) -> Written:
    tokens = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5))
    logprobs = None
    if draw(st.booleans()):
        top = draw(st.integers(0, 3))
        logprobs = tuple(
            TokenLogprob(token, "", draw(scores), tuple((i, "", draw(scores)) for i in range(top)))
            for token in tokens
        )
    ints = st.integers(0, 2**32 - 1)
    about = (draw(st.integers(0, 2**62)), draw(st.integers(0, 2**16 - 1)), draw(ints))
    return Written(*about, array("i", tokens), draw(ints), logprobs)


@settings(deadline=None)
@given(st.lists(parts(), max_size=6), st.integers(1, 200))
def test_pieces_read_back_as_they_were(written: list[Written], most_bytes: int) -> None:
    pieces = [Piece.of(one) for one in written]
    records = list(in_records(pieces, most_bytes))
    assert [one.written() for record in records for one in pieces_of(record)] == written
    assert all(len(record) <= max(most_bytes, *(p.nbytes for p in pieces)) for record in records)


def test_tokens_are_kept_piece_by_piece(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.keep([part(3, [1, 2]), part(4, [7], sample=1)])
    assert (journal.known(3, 0, 9), journal.known(4, 1, 9), journal.known(4, 0, 9)) == (2, 1, 0)
    journal.keep([part(3, [5], first=2)])
    journal.close()
    assert read(tmp_path) == {(3, 0): [1, 2, 5], (4, 1): [7]}


def test_only_their_owner_may_read_them(tmp_path: Path) -> None:
    opened(tmp_path)
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_behind_another_prompt_a_sample_begins_anew(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.keep([part(3, [1, 2])])
    assert journal.known(3, 0, prompt=10) == 0
    journal.keep([part(3, [8], prompt=10)])
    journal.close()
    assert read(tmp_path) == {(3, 0): [8]}


def test_a_piece_that_leaves_a_gap_is_our_mistake(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with pytest.raises(AssertionError):
        journal.keep([part(3, [1], first=1)])


def test_a_journal_that_nobody_needs_goes_when_it_is_closed(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.keep([part(3, [1, 2])])
    journal.end(3)
    journal.close()
    assert files(tmp_path) == []


def test_what_an_earlier_run_began_stands_in_the_new_file_and_the_old_one_goes(
    tmp_path: Path,
) -> None:
    first = opened(tmp_path)
    first.keep([part(3, [1, 2]), part(4, [7])])
    first.close()
    begun, _ = read_tokens(tmp_path, "job")
    second = opened(tmp_path, {3: begun[3]})
    assert files(tmp_path) == ["tokens-0001-00001.bin"]
    second.keep([part(3, [5], first=second.known(3, 0, 9))])
    second.close()
    assert read(tmp_path) == {(3, 0): [1, 2, 5]}


def test_the_file_grows_with_what_is_alive_and_not_with_the_job(tmp_path: Path) -> None:
    journal = opened(tmp_path, spare_bytes=2_000)
    most = 0
    for step in range(600):
        row = step // 3
        first = 20 * (step % 3)
        journal.keep([part(row, list(range(20)), first=first)])
        if step % 3 == 2 and row >= 4:
            journal.end(row - 4)
        journal.sync()
        most = max(most, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert most < 2 * 5 * 60 * 6 + 2_000 + 1_000
    journal.close()
    # Rows that have ended may still be in it: who reads it knows that they have.
    alive = {at: tokens for at, tokens in read(tmp_path).items() if at[0] >= 196}
    assert alive == {(row, 0): [*range(20)] * 3 for row in range(196, 200)}


def test_a_new_file_is_on_the_disk_before_the_old_one_goes(tmp_path: Path) -> None:
    disk = FaultyDisk()
    journal = TokenJournal(disk, tmp_path, "job", {}, spare_bytes=100)
    journal.keep([part(3, list(range(200)))])
    journal.end(3)
    disk.done.clear()
    journal.sync()
    assert [name for name, _ in disk.done if name in ("rename", "remove")] == ["rename", "remove"]
    assert files(tmp_path) == ["tokens-0001-00001.bin"]


def test_of_two_files_the_newer_one_counts(tmp_path: Path) -> None:
    """A crash between the new file's name and the end of the old one leaves both."""
    journal = opened(tmp_path, spare_bytes=0)
    journal.keep([part(3, [1, 2])])
    journal.sync()
    old = tmp_path / "tokens-0001-00000.bin"
    content = old.read_bytes() if old.exists() else b""
    journal.keep([part(3, [5], first=2)])
    journal.close()
    old.write_bytes(content)
    assert read(tmp_path) == {(3, 0): [1, 2, 5]}


def test_tokens_of_another_job_are_none(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.keep([part(3, [1, 2])])
    journal.close()
    assert read_tokens(tmp_path, "another job") == ({}, [])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_whatever_bits_flip_only_what_was_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of each sample, tokens from its first on; perhaps fewer than there were."""
    folder = tmp_path_factory.mktemp("tokens")
    journal = opened(folder)
    whole: dict[int, list[int]] = {row: [] for row in range(3)}
    for step in range(6):
        drawn = [100 * row + step for row in whole]
        journal.keep([part(row, [t], len(whole[row])) for row, t in zip(whole, drawn, strict=True)])
        for row, token in zip(whole, drawn, strict=True):
            whole[row].append(token)
    journal.close()
    [path] = folder.iterdir()
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    begun, _ = read_tokens(folder, "job")
    for row, samples in begun.items():
        assert list(samples[0].tokens) == whole[row][: len(samples[0].tokens)]
