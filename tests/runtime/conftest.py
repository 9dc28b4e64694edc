"""A tiny model and its tokenizer, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parity.families import RUN
from tests.parity.tiny_models import save_tiny, save_word_tokenizer
from tests.quick_probes import quick_probes
from tests.runtime.engines import load_tiny
from tightrun.runtime.loading import LoadedModel
from tightrun.runtime.options import EngineOptions


@pytest.fixture(autouse=True, scope="session")
def _quick_probes() -> Iterator[None]:
    with quick_probes():
        yield


@pytest.fixture(scope="session")
def word_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token i is the word "w<i>"; "<end>" ends a text."""
    return save_word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def tiny_llama(
    tmp_path_factory: pytest.TempPathFactory, word_tokenizer: Path
) -> Iterator[tuple[EngineOptions, LoadedModel]]:
    """What `small_engine` makes engines of; plain torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        folder = save_tiny(tmp_path_factory.mktemp("tiny") / "llama", *RUN["llama"])
        yield load_tiny(folder, word_tokenizer)
