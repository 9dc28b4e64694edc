"""transformers' continuous batching.

Its attention on a CPU is one masked product of all queries with all keys of a pass, so fewer
requests at a time may be faster than all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig

from benchmarks.rivals.told import answer, measure, parser, peak_bytes, read_prompts

NO_END = -1
PAGE_TOKENS = 256


def main() -> None:
    told = parser()
    told.add_argument("--batch-tokens", type=int, required=True, help="tokens of a pass")
    told.add_argument("--requests", type=int, required=True, help="requests of a pass")
    arguments = told.parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.generation_config.update(do_sample=False, eos_token_id=NO_END)
    prompts = read_prompts(arguments.prompts)
    pages = (math.ceil((len(p) + arguments.max_tokens) / PAGE_TOKENS) + 1 for p in prompts)
    batching = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=sum(pages),
        max_batch_tokens=arguments.batch_tokens,
        max_requests_per_batch=arguments.requests,
        allow_block_sharing=False,
    )

    def generate(prompts: Sequence[list[int]], max_tokens: int) -> int:
        outputs = model.generate_batch(
            list(prompts), continuous_batching_config=batching, max_new_tokens=max_tokens
        )
        failed = [output.error for output in outputs.values() if output.error]
        if failed:
            raise RuntimeError(f"{len(failed)} requests failed, the first: {failed[0]}")
        return sum(len(output.generated_tokens) for output in outputs.values())

    tokens, seconds = measure(generate, prompts, arguments.max_tokens)
    answer(tokens, seconds, peak_bytes(), ("torch", "transformers"))


if __name__ == "__main__":
    main()
