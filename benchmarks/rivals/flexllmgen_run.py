"""FlexLLMGen with weights of its own making, for the OPT models it knows; run by the interpreter
of an environment that has it.

Its weights lie on the GPU for the given share and in host memory otherwise, its KV and activations
in host memory, as in its published setting for a 16 GB card. Attention may be computed on the CPU.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.rivals.told import answer, peak_bytes

DUMMY_WEIGHTS = "_DUMMY_"
WARM_UP_TOKENS = 1


def main() -> None:
    told = argparse.ArgumentParser(prog="python -m benchmarks.rivals.flexllmgen_run")
    told.add_argument("--model", required=True, help="such as facebook/opt-30b")
    told.add_argument("--prompt-tokens", type=int, required=True)
    told.add_argument("--max-tokens", type=int, required=True)
    told.add_argument("--batch-size", type=int, required=True)
    told.add_argument("--batches", type=int, required=True)
    told.add_argument("--gpu-percent", type=float, required=True, help="of the weights")
    told.add_argument("--cpu-attention", action="store_true")
    told.add_argument("--offload-folder", default="flexllmgen-offload")
    run(told.parse_args())


def run(told: argparse.Namespace) -> None:
    from flexllmgen.compression import CompressionConfig
    from flexllmgen.flex_opt import OptLM, Policy, get_opt_config
    from flexllmgen.pytorch_backend import TorchDevice, TorchDisk, TorchMixedDevice
    from flexllmgen.utils import ExecutionEnv

    gpu, cpu = TorchDevice("cuda:0"), TorchDevice("cpu")
    disk = TorchDisk(told.offload_folder)
    mixed = TorchMixedDevice([gpu, cpu, disk])
    env = ExecutionEnv(gpu=gpu, cpu=cpu, disk=disk, mixed=mixed)
    unused = CompressionConfig(num_bits=4, group_size=64, group_dim=0, symmetric=False)
    policy = Policy(
        gpu_batch_size=told.batch_size,
        num_gpu_batches=told.batches,
        w_gpu_percent=told.gpu_percent,
        w_cpu_percent=100 - told.gpu_percent,
        cache_gpu_percent=0,
        cache_cpu_percent=100,
        act_gpu_percent=0,
        act_cpu_percent=100,
        overlap=True,
        sep_layer=True,
        pin_weight=True,
        cpu_cache_compute=told.cpu_attention,
        attn_sparsity=1.0,
        compress_weight=False,
        comp_weight_config=unused,
        compress_cache=False,
        comp_cache_config=unused,
    )
    model = OptLM(get_opt_config(told.model), env, DUMMY_WEIGHTS, policy)
    prompts = [[7] * told.prompt_tokens] * (told.batch_size * told.batches)
    try:
        model.generate(prompts, max_new_tokens=WARM_UP_TOKENS)
        began = time.perf_counter()
        model.generate(prompts, max_new_tokens=told.max_tokens)
        seconds = time.perf_counter() - began
    finally:
        env.close_copy_threads()
    answer(len(prompts) * told.max_tokens, seconds, peak_bytes(), ("flexllmgen", "torch"))


if __name__ == "__main__":
    main()
