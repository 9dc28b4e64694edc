"""Copies of standard input and of compressed files."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest
import zstandard

from tightrun.io.input_types import InputError, UnkeptError
from tightrun.io.spool import Spool, compression_of

LINES = b'{"prompt": "a"}\n' * 1000


def test_standard_input_is_copied_whole(tmp_path: Path) -> None:
    copy = Spool(tmp_path / "spool").standard_input(io.BytesIO(LINES * 500))
    assert copy.read_bytes() == LINES * 500


def test_a_run_that_resumes_without_standard_input_reads_the_copy(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    copy = spool.standard_input(io.BytesIO(LINES))
    assert spool.standard_input(None) == copy
    assert spool.standard_input(io.BytesIO(b"")).read_bytes() == LINES


def test_new_standard_input_replaces_the_copy(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.standard_input(io.BytesIO(LINES))
    assert spool.standard_input(io.BytesIO(b"new\n")).read_bytes() == b"new\n"


def test_a_terminal_is_no_standard_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is piped.*tightrun job.yaml < rows.jsonl"):
        Spool(tmp_path).standard_input(None)


def test_compressed_standard_input_names_the_tool(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gzip -dc"):
        Spool(tmp_path).standard_input(io.BytesIO(gzip.compress(LINES)))


PACKED = {
    "gzip": gzip.compress(LINES),
    "gzip of several members": gzip.compress(LINES[:1600]) + gzip.compress(LINES[1600:]),
    "zstd": zstandard.compress(LINES),
    "zstd of several frames": zstandard.compress(LINES[:1600]) + zstandard.compress(LINES[1600:]),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_compressed_file_is_copied_decompressed(tmp_path: Path, name: str) -> None:
    packed = tmp_path / ("a.jsonl.gz" if name.startswith("gzip") else "a.jsonl.zst")
    packed.write_bytes(PACKED[name])
    compression = compression_of(packed)
    assert compression is not None
    assert Spool(tmp_path / "spool").decompressed(packed, compression).read_bytes() == LINES


def test_a_compressed_file_is_known_by_its_bytes_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(PACKED["zstd"])
    assert compression_of(tmp_path / "a.jsonl") == "zstd"
    (tmp_path / "b.jsonl").write_bytes(LINES)
    assert compression_of(tmp_path / "b.jsonl") is None


def test_a_copy_is_made_once_and_anew_when_the_file_changes(tmp_path: Path) -> None:
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(LINES))
    spool = Spool(tmp_path / "spool")
    first = spool.decompressed(packed, "gzip")
    os.utime(first, ns=(1, 1))
    assert spool.decompressed(packed, "gzip").stat().st_mtime_ns == 1
    packed.write_bytes(gzip.compress(b"other\n"))
    assert spool.decompressed(packed, "gzip").read_bytes() == b"other\n"
    assert len(list((tmp_path / "spool").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(os.urandom(5000))[:-100]),
        ("a.jsonl.gz", LINES),
        ("a.jsonl.zst", zstandard.compress(os.urandom(5000))[:-100]),
        ("a.jsonl.zst", LINES),
    ],
)
def test_a_damaged_file_is_named_and_leaves_no_copy(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    compression = compression_of(tmp_path / name)
    assert compression is not None
    with pytest.raises(InputError, match=rf"{name} is not a whole {compression} file"):
        Spool(tmp_path / "spool").decompressed(tmp_path / name, compression)
    assert not list((tmp_path / "spool").iterdir())


def test_a_bomb_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    bomb = tmp_path / "a.jsonl.zst"
    bomb.write_bytes(zstandard.compress(bytes(200 << 20)))
    assert bomb.stat().st_size < 100_000
    spool = Spool(tmp_path / "spool", free_bytes=lambda _: 10 << 20)
    with pytest.raises(InputError, match=r"a\.jsonl\.zst holds more than the .*free some space"):
        spool.decompressed(bomb, "zstd")
    assert not list((tmp_path / "spool").iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    with pytest.raises(UnkeptError, match=r"standard input cannot be copied to .*stdin\.jsonl"):
        Spool(tmp_path / "spool" / "input").standard_input(io.BytesIO(LINES))
