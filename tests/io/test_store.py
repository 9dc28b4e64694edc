"""The folder at a URL, over stores that are a folder and a memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tightrun.io import patience
from tightrun.io.output_place import OutputError
from tightrun.io.patience import RemoteError
from tightrun.io.store import Sending, Store


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    MemoryFileSystem.store.clear()
    yield Store("memory://bucket/out/" if request.param == "memory" else f"file://{tmp_path}/out")
    MemoryFileSystem.store.clear()


def test_what_was_put_is_listed_and_read(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")
    store.put([Sending(tmp_path / "file", "data/a.bin"), Sending(b"bytes", "b.bin")])
    assert store.sizes("") == {"data/a.bin": 11, "b.bin": 5}
    assert store.sizes("data") == {"data/a.bin": 11}
    assert store.read("b.bin") == b"bytes"
    assert b"".join(store.chunks("data/a.bin")) == b"from a file"


def test_what_is_not_there_is_nothing(store: Store) -> None:
    assert store.sizes("") == {}
    assert store.read("missing") is None
    with pytest.raises(FileNotFoundError):
        list(store.chunks("missing"))


def test_files_are_replaced_and_removed(store: Store) -> None:
    store.put([Sending(b"old", "a")])
    store.put([Sending(b"newer", "a")])
    assert store.read("a") == b"newer"
    store.remove(["a", "never there"])
    assert store.sizes("") == {}


def test_all_of_it_is_moved_aside(store: Store) -> None:
    store.put([Sending(b"x", "data/a"), Sending(b"y", "b")])
    store.move([""], ".old")
    assert store.sizes("") == {}
    assert Store(f"{store.url}.old").sizes("") == {"data/a": 1, "b": 1}


def test_some_of_it_is_moved_aside(store: Store) -> None:
    store.put([Sending(b"x", "a.jsonl"), Sending(b"y", "a.tightrun/b"), Sending(b"z", "c")])
    store.move(["a.jsonl", "a_errors.jsonl", "a.tightrun"], ".old")
    assert set(store.sizes("")) == {"a.jsonl.old", "a.tightrun.old/b", "c"}


def test_a_file_that_does_not_arrive_whole_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cuts = LocalFileSystem.put_file, [4, 7]

    def put_file(fs: Any, local: str, path: str, **kwargs: Any) -> None:
        real(fs, local, path, **kwargs)
        if cuts:
            with Path(path).open("r+b") as file:
                file.truncate(cuts.pop())

    monkeypatch.setattr(LocalFileSystem, "put_file", put_file)
    monkeypatch.setattr(patience, "WAITS_S", (0.0, 0.0))
    (tmp_path / "file").write_bytes(b"0123456789")
    store = Store(f"file://{tmp_path}/out")
    store.put([Sending(tmp_path / "file", "a")])
    assert store.read("a") == b"0123456789"
    cuts += [1, 2, 3]
    with pytest.raises(RemoteError, match="1 bytes arrived of 10"):
        store.put([Sending(tmp_path / "file", "a")])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://example.org/out", "can be read only"),
        ("zip://a::s3://bucket/b.zip", "can be read only"),
        ("nothing://bucket/out", "Protocol not known"),
        ("hf://owner/model/out", "is no dataset of the hub"),
    ],
)
def test_what_cannot_be_written_to_is_refused(url: str, why: str) -> None:
    with pytest.raises(OutputError, match=why):
        Store(url)
