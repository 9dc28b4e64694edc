"""What a job will ask for, from what is known of it before it starts; a plan and a run agree."""

from __future__ import annotations

from tightrun.policies.plan import Workload

# Tokens that a chat template and special tokens add at the most.
TEMPLATE_TOKENS = 1024


def workload_of(
    *,
    rows: int | None,
    samples: int,
    max_tokens: int,
    prompt_bytes: int | None = None,
    prompts: tuple[int, ...] = (),
    expected_output: int | None = None,
    outputs: tuple[int, ...] = (),
) -> Workload:
    """The workload of `rows` rows whose longest prompt has `prompt_bytes` (None: not known).

    `prompts` and `outputs` are tokens as in a Workload, `expected_output` those of a mean output.
    """
    # A token stands for a byte at least.
    longest = None if prompt_bytes is None else prompt_bytes + TEMPLATE_TOKENS + max_tokens
    if not prompts:
        return Workload(
            rows, samples, longest, typical_output=expected_output, most_output=max_tokens
        )
    output = max_tokens if expected_output is None else expected_output
    typical = round(sum(prompts) / len(prompts)) + output
    return Workload(rows, samples, longest, typical, output, prompts, max_tokens, outputs)
