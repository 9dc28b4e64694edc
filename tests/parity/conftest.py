"""Checkpoints are made once, kernels compiled once; the libraries stay quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.parity.families import LONGROPE, RUN
from tests.parity.tiny_models import Oracle, ragged_prompts, save_tiny, save_word_tokenizer
from tests.quick_probes import quick_probes


@pytest.fixture(autouse=True, scope="session")
def _quick_probes() -> Iterator[None]:
    with quick_probes():
        yield


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kernels are kept in a folder of this session, so that nothing of the user's is used."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        patch.setenv("TQDM_DISABLE", "1")
        yield home / "tightrun" / "kernels"


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's folder. A model's own config beside it would choose another class."""
    return save_word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The checkpoint of a family with what `generate` says; made at the first call."""
    made: dict[str, Oracle] = {}

    def make(family: str) -> Oracle:
        if family not in made:
            folder = tmp_path_factory.mktemp("model") / "model"
            oracle = Oracle(save_tiny(folder, *RUN[family]), ragged_prompts())
            oracle.set_end_token()
            made[family] = oracle
        return made[family]

    return make


@pytest.fixture(scope="session")
def longrope_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "longrope", *LONGROPE)
