"""Whatever stands in the files of a tokenizer, it encodes, or is refused in words; no code runs."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.tokenizers_on_disk import CHAT, save_tokenizer
from tests.io.input_jobs import job_over
from tightrun.cli.light_tokenizer import LightTokenizer, NoTokenizerError
from tightrun.core import Request
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.tokenizer import PromptError, Tokenizer

ANY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FILES = ("tokenizer.json", "tokenizer_config.json")
KEYS = (
    *("chat_template", "tokenizer_class", "auto_map", "bos_token", "eos_token", "pad_token"),
    *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"),
    *("model_max_length", "padding_side", "clean_up_tokenization_spaces", "name_or_path"),
)
WORDS = (
    *("PreTrainedTokenizerFast", "LlamaTokenizer", "../x", "custom.Tokenizer", "🙂", "\ud800"),
    *("{{ x.__class__ }}", "{% for i in range(10**9) %}{% endfor %}", "{{ 'a' * 10**9 }}", "{%"),
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values of a JSON document, but not into every token of the vocabulary."""
    found = [path] if path else []
    if isinstance(tree, dict) and path[-1:] != ("vocab",):
        for key, value in tree.items():
            found += places(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            found += places(value, (*path, index))
    return found


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree[part]
    tree[path[-1]] = value


def use(folder: Path) -> None:
    """Encodes with it as a plan does, and as a run does."""
    request = Request(0, "r", "say it")
    with suppress(NoTokenizerError):
        LightTokenizer(job_over("x.jsonl", model=str(folder))).counts([request])
    with suppress(ModelRefusedError):
        tokenizer = Tokenizer(str(folder))
        with suppress(PromptError):
            assert all(isinstance(token, int) for token in tokenizer.encode(request))


@given(st.data())
@ANY
def test_files_of_any_content_encode_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    folder = save_tokenizer(tmp_path / "model", CHAT, begin="<s>")
    name = data.draw(st.sampled_from(FILES))
    tree = json.loads((folder / name).read_text())
    changed = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 2))):
        ways = [*places(tree), *(((key,)) for key in KEYS)]
        with suppress(KeyError, IndexError, TypeError):
            put(changed, data.draw(st.sampled_from(ways)), data.draw(values))
    (folder / name).write_text(json.dumps(changed), encoding="utf-8")
    use(folder)


@given(st.sampled_from(FILES), st.binary(max_size=40))
@ANY
def test_files_that_are_no_json_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = save_tokenizer(tmp_path / "model", CHAT)
    (folder / name).write_bytes(content)
    use(folder)


def test_code_beside_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["custom.Mine", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "custom.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Mine: pass\n"
    )
    use(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("most", [[], {}, "many"])
def test_a_length_that_is_no_number_is_refused(tmp_path: Path, most: Any) -> None:
    folder = save_tokenizer(tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": most}))
    with pytest.raises(ModelRefusedError, match="cannot load the tokenizer"):
        Tokenizer(str(folder))


@pytest.mark.parametrize("depth", [50_000])
def test_a_tokenizer_config_without_a_bottom_is_refused(tmp_path: Path, depth: int) -> None:
    folder = save_tokenizer(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"a":' * depth + "1" + "}" * depth)
    use(folder)
