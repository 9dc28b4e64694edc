"""Answers the sample job's rows with transformers alone: the figure tightrun must repeat.

python -m sample_jobs.training.evaluate [--dtype bfloat16] [--show 20]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sample_jobs.training.dates_data import SUFFIX, Row
from sample_jobs.training.make_shards import DATES_FOLDER

COLUMNS = ("id", "sentence", "style", "expected")
# Without a schema the JSON reader takes the answers for timestamps.
SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


def read_shards(folder: Path) -> list[Row]:
    """The rows of every shard in `folder`, in the order of the sample job."""
    rows: list[Row] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path, columns=list(COLUMNS))
        elif path.suffix == ".jsonl":
            options = pa.json.ParseOptions(explicit_schema=SCHEMA)
            table = pa.json.read_json(path, parse_options=options)
        else:
            continue
        rows += [Row(*(row[name] for name in COLUMNS)) for row in table.to_pylist()]
    return rows


def answers(
    model_folder: Path, sentences: Sequence[str], dtype: torch.dtype, batch_size: int = 128
) -> list[str]:
    """The greedy answer to each sentence, in the order given."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype)
    by_length = sorted(range(len(sentences)), key=lambda at: len(sentences[at]))
    found = [""] * len(sentences)
    for start in range(0, len(by_length), batch_size):
        chosen = by_length[start : start + batch_size]
        prompts = [sentences[at] + SUFFIX for at in chosen]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        texts = tokenizer.batch_decode(
            tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for at, text in zip(chosen, texts, strict=True):
            found[at] = text.strip()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=DATES_FOLDER / "model")
    parser.add_argument("--data", type=Path, default=DATES_FOLDER / "data")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=20, help="wrong answers to print")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows = read_shards(chosen.data)
    started = time.monotonic()
    texts = answers(chosen.model, [r.sentence for r in rows], getattr(torch, chosen.dtype))
    seconds = time.monotonic() - started
    wrong = [(row, text) for row, text in zip(rows, texts, strict=True) if text != row.expected]
    for row, text in wrong[: chosen.show]:
        print(f"{row.id}  {row.expected}  answered {text:12}  {row.style}: {row.sentence}")
    if wrong:
        print("wrong by style:", dict(Counter(row.style for row, _ in wrong).most_common()))
    right = len(rows) - len(wrong)
    print(
        f"{right:,} of {len(rows):,} rows right ({right / len(rows):.2%}), "
        f"{chosen.dtype}, {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
