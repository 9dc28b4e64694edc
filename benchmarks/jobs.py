"""The job of a benchmark: a random Llama and random prompts, the same for every rival."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL_TOKENS = ("<unk>", "<pad>", "<eos>")
MODEL, PROMPT_IDS, PROMPT_LINES = "model", "prompts.json", "prompts.jsonl"


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A Llama's sizes; embedding and head are two matrices."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def products(self) -> dict[str, tuple[int, int]]:
        """The matrix products of one layer as (inputs, outputs)."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def dense_parameters(self) -> int:
        """Weights of all layers that a token is multiplied with."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.products.values())

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocab

    @property
    def parameters(self) -> int:
        norms = (2 * self.layers + 1) * self.hidden
        return self.dense_parameters + 2 * self.head_parameters + norms


@dataclass(frozen=True, slots=True)
class JobSize:
    """How many prompts of how many tokens, how many tokens to generate for each, and by what."""

    prompts: int
    shortest: int
    longest: int
    max_tokens: int
    model: ModelSize

    @property
    def output_tokens(self) -> int:
        return self.prompts * self.max_tokens


FULL = JobSize(64, 32, 383, 64, ModelSize(1024, 16, 16, 4, 2816, 32_000))
QUICK = JobSize(8, 16, 64, 8, ModelSize(256, 4, 4, 2, 704, 2_000))


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job on disk: `folder` holds the model with its tokenizer, and the prompts in two forms."""

    folder: Path
    size: JobSize
    lengths: tuple[int, ...]

    @property
    def model(self) -> Path:
        """Safetensors in bfloat16, with the tokenizer beside them."""
        return self.folder / MODEL

    @property
    def prompt_ids(self) -> Path:
        """A JSON list of lists of token ids."""
        return self.folder / PROMPT_IDS

    @property
    def prompt_lines(self) -> Path:
        """The same prompts as JSONL with the columns `id` and `prompt`, a text."""
        return self.folder / PROMPT_LINES

    @property
    def prompt_tokens(self) -> int:
        return sum(self.lengths)


def dense_flops(size: JobSize, lengths: Sequence[int]) -> float:
    """FLOPs of all matrix products with weights: every prompt token and every generated token but
    the last of each row goes through the layers, every generated token has come from the head."""
    fed = sum(lengths) + len(lengths) * (size.max_tokens - 1)
    rows = len(lengths) * size.max_tokens
    return 2.0 * (size.model.dense_parameters * fed + size.model.head_parameters * rows)


def random_prompts(size: JobSize, seed: int) -> list[list[int]]:
    """Token ids, no special token among them; lengths uniform from shortest to longest."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(size.shortest, size.longest + 1, size.prompts)
    words = size.model.vocab - len(SPECIAL_TOKENS)
    return [draw.integers(0, words, length).tolist() for length in lengths]


def text_of(prompt: Sequence[int]) -> str:
    """The text that the job's tokenizer turns into exactly these ids."""
    return " ".join(f"w{token}" for token in prompt)


def prepare(size: JobSize, seed: int, workdir: Path) -> PreparedJob:
    """The job under `workdir`, made if it is not there yet.

    Raises ValueError when the tokenizer that transformers picks does not give a prompt's ids back.
    """
    name = f"llama-{size.model.parameters / 1e6:.0f}m-{size.prompts}-prompts-seed-{seed}"
    prompts = random_prompts(size, seed)
    job = PreparedJob(workdir / name, size, tuple(len(prompt) for prompt in prompts))
    sizes = {"seed": seed, **asdict(size)}
    if not _made(job.folder, sizes):
        partial = job.folder.with_name(f".{name}")
        for folder in (partial, job.folder):
            shutil.rmtree(folder, ignore_errors=True)
        _write(PreparedJob(partial, size, job.lengths), prompts, seed)
        (partial / "job.json").write_text(json.dumps(sizes))
        partial.rename(job.folder)
    _check_tokenizer(job.model, prompts)
    return job


def _made(folder: Path, sizes: dict[str, Any]) -> bool:
    found = folder / "job.json"
    return found.is_file() and json.loads(found.read_text()) == sizes


def _write(job: PreparedJob, prompts: list[list[int]], seed: int) -> None:
    job.model.mkdir(parents=True)
    write_tokenizer(job.model, job.size.model.vocab)
    _write_model(job.model, job.size, seed)
    job.prompt_ids.write_text(json.dumps(prompts))
    with job.prompt_lines.open("w") as lines:
        for number, prompt in enumerate(prompts):
            row = {"id": f"row-{number}", "prompt": text_of(prompt)}
            lines.write(json.dumps(row) + "\n")


def write_tokenizer(folder: Path, vocab: int) -> None:
    """A word is a token: `w17` is 17. Special tokens come last and have names no word contains,
    or they would split words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = vocab - len(SPECIAL_TOKENS)
    names = [*(f"w{number}" for number in range(words)), *SPECIAL_TOKENS]
    ids = {name: number for number, name in enumerate(names)}
    unknown, padding, end = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))
    # The class that every version of transformers knows; the rivals may have another than we.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": unknown}
    config |= {"pad_token": padding, "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _write_model(folder: Path, size: JobSize, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = size.model
    config = LlamaConfig(
        vocab_size=model.vocab,
        hidden_size=model.hidden,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        pad_token_id=model.vocab - 2,
        eos_token_id=model.vocab - 1,
    )
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(config).bfloat16()
    assert llama.num_parameters() == model.parameters
    llama.save_pretrained(folder)


def _check_tokenizer(model: Path, prompts: list[list[int]]) -> None:
    """A config beside the tokenizer may make transformers pick another class than it was saved as;
    the rivals would then do different work."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for prompt in prompts:
        if tokenizer.encode(text_of(prompt)) != prompt:
            raise ValueError(
                f"{type(tokenizer).__name__}, which transformers picks for {model}, gives other "
                "tokens than the prompt was made of; use another version of transformers"
            )
