"""What the engine is asked to run, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tightrun.runtime.tokenizer import Chat


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to run and within which limits.

    `gpu_memory` and `cpu_memory` are a share of what may be used (float) or bytes (int).
    `prompt_bytes` is the length of the longest prompt, where it is known. `kernel_cache` is the
    folder compiled kernels are kept in (None: plain torch only), `compiler` the user's $CXX.
    """

    model: str
    revision: str | None = None
    dtype: str = "auto"
    tokenizer: str | None = None
    trust_remote_code: bool = False
    device: str = "auto"
    gpu_memory: float | int = 0.9
    cpu_memory: float | int = 0.8
    context: int | None = None
    batch_size: int | None = None
    batches: int | None = None
    chat: Chat = "auto"
    system: str | None = None
    on_overflow: str = "error"
    sampling_n: int = 1
    max_tokens: int = 256
    rows: int | None = None
    prompt_bytes: int | None = None
    kernel_cache: Path | None = None
    compiler: str | None = None
    poison: bool = False
