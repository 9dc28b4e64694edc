"""Tiny checkpoints on disk, their prompts, and what transformers' own `generate` makes of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.parity.families import VOCAB

SPECIAL = ("<unk>", "<end>", "<pad>")
END, PAD = 1, 2
NEW_TOKENS = 12


def save_word_tokenizer(folder: Path) -> Path:
    """Token i is the word "w<i>", so that equal text is equal tokens. No chat template."""
    words = {SPECIAL[i] if i < len(SPECIAL) else f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": SPECIAL[END], "pad_token": SPECIAL[PAD]}
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def save_tiny(folder: Path, model_type: str, sizes: dict[str, Any]) -> Path:
    """A checkpoint with random weights, in float32, large enough to make context matter."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, **sizes)
    config.eos_token_id = None
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # As the library draws them, layers of this width have almost no effect beside the
            # embedding, and wrong attention would go unseen.
            if re.search("embed|wte|wpe", name):
                parameter.normal_(0, 0.05)
            elif parameter.dim() >= 2:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias") or "sinks" in name:
                parameter.normal_(0, 0.1)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    return folder


def ragged_prompts(count: int = 14, shared: int = 70, longest: int = 60) -> list[list[int]]:
    """Token lists of many lengths that begin with the same `shared` tokens."""
    generator = torch.Generator().manual_seed(3)

    def draw(tokens: int) -> list[int]:
        drawn = torch.randint(len(SPECIAL), VOCAB, (tokens,), generator=generator)
        return [int(x) for x in drawn]

    prefix = draw(shared)
    lengths = torch.randint(1, longest, (count,), generator=generator)
    return [prefix + draw(int(length)) for length in lengths]


def as_text(tokens: list[int]) -> str:
    return " ".join(SPECIAL[t] if t < len(SPECIAL) else f"w{t}" for t in tokens)


def spoken(tokens: list[int]) -> str:
    """What the output says: special tokens are left out."""
    return as_text([t for t in tokens if t not in (END, PAD)])


@dataclass(frozen=True)
class Oracle:
    """A checkpoint, its prompts, and what greedy `generate` says to each of them.

    One token that is generated is made the model's end token, others the job's stop tokens, so
    that sequences end at different times.
    """

    folder: Path
    prompts: list[list[int]]
    new_tokens: int = NEW_TOKENS

    @cached_property
    def generated(self) -> list[list[int]]:
        """The new tokens of each prompt without any early end."""
        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(self.folder, dtype=torch.float32).eval()
        found = []
        for prompt in self.prompts:
            ids = torch.tensor([prompt])
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self.new_tokens,
                    do_sample=False,
                    pad_token_id=PAD,
                )
            found.append(out[0, len(prompt) :].tolist())
        return found

    @cached_property
    def _ends(self) -> list[int]:
        """Two tokens that each occur in about every fifth output."""
        occurs = Counter(token for tokens in self.generated for token in set(tokens))
        wanted = len(self.prompts) / 5
        ordered = sorted(occurs, key=lambda token: (abs(occurs[token] - wanted), token))
        return ordered[:2]

    @property
    def end(self) -> int:
        return self._ends[0]

    @property
    def stops(self) -> list[int]:
        return self._ends[1:]

    @cached_property
    def expected(self) -> list[tuple[str, str, int]]:
        """(text, finish_reason, tokens) of each prompt."""
        return [self._cut(tokens) for tokens in self.generated]

    def _cut(self, tokens: list[int]) -> tuple[str, str, int]:
        for at, token in enumerate(tokens):
            if token == self.end or token in self.stops:
                return spoken(tokens[:at]), "stop", at + 1
        return spoken(tokens), "length", len(tokens)

    def set_end_token(self) -> None:
        """Write the end token where `generate` looks for it."""
        path = self.folder / "generation_config.json"
        settings = json.loads(path.read_text()) | {"eos_token_id": [self.end]}
        path.write_text(json.dumps(settings))
