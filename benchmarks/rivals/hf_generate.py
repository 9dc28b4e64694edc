"""transformers' `generate` with a batch size, prompts padded on the left.

In the order given, as a script batches the rows it reads; or sorted by length first, which takes
most of the padding away and needs all rows at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.rivals.told import answer, measure, parser, peak_bytes, read_prompts


def main() -> None:
    told = parser()
    told.add_argument("--batch-size", type=int, required=True)
    told.add_argument("--sort", action="store_true", help="sort the prompts by length first")
    arguments = told.parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.generation_config.update(do_sample=False, eos_token_id=None)
    padding: int = model.config.pad_token_id

    def generate(prompts: Sequence[list[int]], max_tokens: int) -> int:
        ordered = sorted(prompts, key=len) if arguments.sort else list(prompts)
        tokens = 0
        with torch.inference_mode():
            for start in range(0, len(ordered), arguments.batch_size):
                ids, mask = padded(ordered[start : start + arguments.batch_size], padding)
                made = model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens)
                tokens += (made.shape[1] - ids.shape[1]) * len(ids)
        return tokens

    prompts = read_prompts(arguments.prompts)
    tokens, seconds = measure(generate, prompts, arguments.max_tokens)
    answer(tokens, seconds, peak_bytes(), ("torch", "transformers"))


def padded(prompts: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both [batch, longest prompt], padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), padding)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


if __name__ == "__main__":
    main()
