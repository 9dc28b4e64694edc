"""accelerate's offload with `generate`: the weights of every module are brought in for its forward
pass and dropped after it.

`disk` on a CPU: the offload index points into the checkpoint's own safetensors, as transformers'
`device_map` leaves it, or (`--copies`) at the arrays that `disk_offload` writes. `cpu` on a GPU:
`cpu_offload` from host memory. With `--drop-cache` the files leave the page cache before each pass.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import cpu_offload, disk_offload, init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.rivals.hf_generate import padded
from benchmarks.rivals.told import answer, parser, peak_bytes, read_prompts

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Passes:
    """When each forward pass began; `before` is called first, and its time is left out."""

    def __init__(self, model: torch.nn.Module, before: Callable[[], None]) -> None:
        self.seconds: list[float] = []
        self.away_s = 0.0
        self._before = before
        self._began: float | None = None
        model.register_forward_pre_hook(self._enter)

    def clear(self) -> None:
        """Forgets the passes so far."""
        self.seconds, self.away_s, self._began = [], 0.0, None

    def close(self) -> None:
        """Ends the last pass."""
        if self._began is not None:
            self.seconds.append(time.perf_counter() - self._began)
            self._began = None

    def _enter(self, *_: Any) -> None:
        self.close()
        began = time.perf_counter()
        self._before()
        self._began = time.perf_counter()
        self.away_s += self._began - began


def main() -> None:
    told = parser()
    told.add_argument("--batch-size", type=int, required=True)
    told.add_argument("--batches", type=int, help="stop after so many (default: all prompts)")
    told.add_argument("--weights", choices=("disk", "cpu"), required=True)
    told.add_argument("--device", default="cpu")
    told.add_argument("--offload-folder", type=Path, help="for the index or the arrays")
    told.add_argument("--copies", action="store_true", help="arrays instead of the safetensors")
    told.add_argument("--drop-cache", action="store_true")
    told.add_argument("--gpu-memory", type=int, help="bytes of the GPU that may be used")
    arguments = told.parse_args()
    if arguments.gpu_memory:
        total = torch.cuda.get_device_properties(arguments.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, arguments.gpu_memory / total))
    model = offloaded(arguments)
    files = weight_files(arguments) if arguments.weights == "disk" else []
    drop(files, flush=True)
    passes = Passes(model, partial(drop, files if arguments.drop_cache else ()))
    prompts = read_prompts(arguments.prompts)
    if arguments.batches:
        prompts = prompts[: arguments.batches * arguments.batch_size]
    if not arguments.drop_cache:  # what is read anew each time gains nothing from a warm-up
        generate(model, prompts[:1], 1, arguments)
        passes.clear()
    read_before = bytes_read()
    began = time.perf_counter()
    tokens = generate(model, prompts, arguments.max_tokens, arguments)
    seconds = time.perf_counter() - began - passes.away_s
    passes.close()
    answer(
        tokens,
        seconds,
        peak_bytes(),
        ("torch", "transformers", "accelerate"),
        pass_seconds=passes.seconds,
        bytes_read_per_pass=(bytes_read() - read_before) / len(passes.seconds),
        batch_size=arguments.batch_size,
    )


def offloaded(told: argparse.Namespace) -> Any:
    """The model with accelerate's hooks on it, ready to generate on `told.device`."""
    config = AutoConfig.from_pretrained(told.model)
    device = torch.device(told.device)
    if told.weights == "cpu":
        model: Any = AutoModelForCausalLM.from_pretrained(
            told.model, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        return settled(cpu_offload(model, execution_device=device))
    auto: Any = AutoModelForCausalLM
    with init_empty_weights():
        model = auto.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    if told.copies and not (told.offload_folder / "index.json").is_file():
        model = AutoModelForCausalLM.from_pretrained(told.model, dtype=torch.bfloat16)
    elif not told.copies:
        write_index(told.model, told.offload_folder)
    return settled(disk_offload(model, str(told.offload_folder), execution_device=device).eval())


def settled(model: Any) -> Any:
    """Greedy, and no end before the asked number of tokens."""
    model.generation_config.update(do_sample=False, eos_token_id=None)
    return model


def write_index(model: Path, folder: Path) -> None:
    """accelerate's index of offloaded weights, pointing into the checkpoint's files."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        name: {"safetensors_file": str(file), "weight_name": name, "dtype": "bfloat16"}
        for name, file in weight_places(model).items()
    }
    (folder / "index.json").write_text(json.dumps(index))


def weight_places(model: Path) -> dict[str, Path]:
    """The file of every tensor of a checkpoint."""
    if (model / INDEX).is_file():
        places = json.loads((model / INDEX).read_text())["weight_map"]
        return {name: model / file for name, file in places.items()}
    from safetensors import safe_open

    with safe_open(model / SINGLE, framework="pt") as tensors:
        return dict.fromkeys(tensors.keys(), model / SINGLE)


def weight_files(told: argparse.Namespace) -> list[Path]:
    """The files that a pass reads."""
    if told.copies:
        return sorted(told.offload_folder.glob("*.dat"))
    return sorted(set(weight_places(told.model).values()))


def drop(files: Sequence[Path], flush: bool = False) -> None:
    """Takes files out of the page cache; `flush` for those that may have been written just now."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            if flush:
                os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def bytes_read() -> int:
    """Bytes that this process has had read from disks."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    return 0


@torch.inference_mode()
def generate(
    model: Any, prompts: Sequence[list[int]], max_tokens: int, told: argparse.Namespace
) -> int:
    """Generates batch after batch and returns the number of new tokens."""
    tokens = 0
    for start in range(0, len(prompts), told.batch_size):
        ids, mask = padded(prompts[start : start + told.batch_size], model.config.pad_token_id)
        ids, mask = ids.to(told.device), mask.to(told.device)
        made = model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens)
        tokens += (made.shape[1] - ids.shape[1]) * len(ids)
    return tokens


if __name__ == "__main__":
    main()
