"""A first job file for somebody to fill in."""

from __future__ import annotations

_STARTER = """\
# A tightrun job. Check it with `tightrun validate job.yaml`, see what it would do here and how fast
# with `tightrun plan job.yaml`, try its first rows with `tightrun job.yaml --limit 20`, and run it
# with `tightrun job.yaml`.
# Relative paths start at the folder of this file. ${VAR} and ${VAR:-default} come from the
# environment. What is commented out shows the default, or an example where there is none.

# A local folder or a name on the Hugging Face hub.
model: Qwen/Qwen3-0.6B
# model: {path: Qwen/Qwen3-0.6B, revision: main, dtype: auto, trust_remote_code: false}
#                              # and tokenizer: for one that is not the model's own

input:
  # A file, folder, glob or list of them: .parquet .jsonl .jsonl.gz .jsonl.zst; - is standard input.
  path: "data/*.parquet"
  # dataset: owner/name        # instead of path, with name:, split: and revision:
  # format: auto               # auto | parquet | jsonl | openai-batch

  # The column with the prompt. Instead of it: the column of a chat, or a template over the row.
  prompt: question
  # messages: messages
  # template: "Translate into French: {{ sentence }}"

  # system: You are terse.     # needs a model with a chat template
  # chat: auto                 # auto | true | false: put prompts into the chat template
  # id: custom_id              # column with the id of a row; it must be unique in the job

sampling:
  max_tokens: 256
  temperature: 0               # 0 always takes the most likely token
  # top_p: 1
  # top_k: 0
  # min_p: 0
  # repetition_penalty: 1
  # presence_penalty: 0
  # frequency_penalty: 0
  # stop: []                   # texts that end the output, such as ["###"]
  # stop_token_ids: []
  # seed: 0
  # n: 1                       # samples per row
  # logprobs: 0                # alternatives to report per token, up to 20
  # min_tokens: 0
  # ignore_eos: false

output:
  path: out/                   # a Hugging Face dataset as it stands
  # format: parquet            # parquet | jsonl | openai-batch
  # keep_columns: all          # all | none | [columns]
  # shard_rows: 10000

limits:
  # gpu_memory: 90%            # a share of what may be used, or a size such as 24GiB
  # cpu_memory: 80%
  # disk: auto                 # for weights and cache that fit neither memory; 0 is never
  # context: auto              # tokens of prompt and output together
  # time: none                 # such as 3h: stop, save, and go on with the next start
  # max_failed: 5%             # stop when more rows fail; or a number of rows, or none

# hardware: auto               # auto | cpu | cuda:0 | a machine to emulate:
# hardware: {device: emulated, gpu_memory: 400MiB, h2d: 500MB/s, d2h: 500MB/s}

# policy: adaptive             # adaptive | static | sync
# policy: {name: adaptive, recompute: auto, recompute_form: auto, batch_size: auto, batches: auto}

# on_overflow: error           # a prompt longer than the context: error | truncate_left
"""


def starter_text() -> str:
    """A commented job file that loads as it is and names every key."""
    return _STARTER
