"""Where the parts of an output lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrun.io.output_place import OutputError, OutputPlace


def test_a_folder_holds_all_of_its_output() -> None:
    place = OutputPlace.of("/x/out/")
    assert place.shard(3, ".parquet") == Path("/x/out/data/train-00003.parquet")
    assert place.bookkeeping == Path("/x/out/_tightrun")
    assert place.card == Path("/x/out/README.md")
    assert place.shard_errors(3) is None
    assert not place.single_file


def test_a_single_file_has_its_bookkeeping_and_its_failed_lines_beside_it() -> None:
    place = OutputPlace.of("/x/results.jsonl")
    assert place.bookkeeping == Path("/x/results.tightrun")
    assert place.failed == Path("/x/results_errors.jsonl")
    assert place.shard(0, ".jsonl") == Path("/x/results.tightrun/data/train-00000.jsonl")
    assert place.card is None
    assert place.single_file


def test_an_address_on_a_network_is_refused() -> None:
    with pytest.raises(OutputError, match="s3://bucket/out is not on a local disk"):
        OutputPlace.of("s3://bucket/out")
