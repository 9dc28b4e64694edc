"""The engine: a model in memory, a plan, and the loop that turns requests into completions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from tightrun.core import Completion, Request, StepRecord
from tightrun.policies.cost import bound_of_pass
from tightrun.policies.hardware import Hardware, Rates
from tightrun.policies.plan import DoesNotFitError, Plan, Workload, plan_resident
from tightrun.runtime.accounts import Accounts, EngineSnapshot, EngineSummary, peak_rss_bytes
from tightrun.runtime.attention import AttentionKernel
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.checkpoint import ModelSource, checkpoint_bytes, load_config, load_model
from tightrun.runtime.delivery import Delivery
from tightrun.runtime.feed import Feed
from tightrun.runtime.finishing import TokenScores, append_token
from tightrun.runtime.inspection import InspectedModel, inspect_model, paged_attention
from tightrun.runtime.kernel_choice import choose_kernel, is_token_major
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.limits import choose_device, detect_hardware
from tightrun.runtime.loop import run_pass
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.prepack import can_prepack, prepack
from tightrun.runtime.rates import probe_rates
from tightrun.runtime.sampling import Sampler
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.tokenizer import Chat, Tokenizer, end_tokens
from tightrun.runtime.weights import ResidentWeights

Notify = Callable[[str], None]
PREFIX_SAMPLE = 64


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


class Engine:
    """Runs requests through one model. Make it with `Engine.load`; one `run` at a time."""

    def __init__(
        self,
        options: EngineOptions,
        inspected: InspectedModel,
        tokenizer: Tokenizer,
        ends: frozenset[int],
        hardware: Hardware,
        plan: Plan,
        rates: Rates,
        kernel: AttentionKernel,
    ) -> None:
        self.options = options
        self.tokenizer = tokenizer
        self.hardware = hardware
        self.plan = plan
        self.rates = rates
        self.shape = inspected.shape
        self.kernel = kernel
        self.device = torch.device(hardware.device)
        self._inspected = inspected
        self._ends = ends
        self._sampler = Sampler(ends)
        self._weights = ResidentWeights()
        self._accounts = Accounts()
        self._began = time.perf_counter()
        self._feed: Feed | None = None
        self._cache = KVCache(
            inspected.shape,
            plan.kv_blocks,
            plan.block_tokens,
            plan.batch_size + 1,  # one more place for the shared prefix
            plan.context,
            inspected.dtype,
            self.device,
            token_major=is_token_major(kernel),
            poison=options.poison,
        )
        self._scheduler = Scheduler(plan, self._cache, SharedPrefix(self._cache))

    @classmethod
    def load(cls, options: EngineOptions, notify: Notify) -> Engine:
        """Load and prove the model, probe the device, plan.

        Raises ModelRefusedError for a model that cannot be run exactly, DoesNotFitError with the
        sum if memory does not suffice, ValueError for a device that is not there.
        """
        device = choose_device(options.device)
        source = ModelSource(
            options.model, options.revision, options.dtype, options.trust_remote_code
        )
        config = load_config(source)
        hardware = detect_hardware(device, options.gpu_memory, options.cpu_memory)
        _refuse_too_large(source, hardware)
        tokenizer = Tokenizer(
            options.tokenizer or options.model,
            revision=None if options.tokenizer else options.revision,
            trust_remote_code=options.trust_remote_code,
            chat=options.chat,
            system=options.system,
        )
        ends = end_tokens(options.model, options.revision, tokenizer, config)
        notify(f"loading {options.model} on {device}")
        inspected = inspect_model(load_model(source, config, device), device)
        shape, dtype = inspected.shape, inspected.dtype
        rates = probe_rates(shape, dtype, device)
        plan = plan_resident(
            shape,
            hardware.device_memory,
            str(device),
            _workload(options),
            batch_size=options.batch_size,
            batches=options.batches,
            context=options.context,
            beside=_beside(shape.weight_bytes, device),
        )
        if can_prepack(device, dtype):
            _prepack(inspected, plan)
        kernel = choose_kernel(
            shape,
            plan.block_tokens,
            dtype,
            device,
            options.kernel_cache,
            options.compiler,
            notify,
        )
        inspected.cut.answer_attention(paged_attention(kernel))
        return cls(options, inspected, tokenizer, ends, hardware, plan, rates, kernel)

    def run(
        self,
        requests: Iterable[Request],
        finish: Callable[[Completion], None],
        on_step: Callable[[StepRecord], None],
        stop: threading.Event,
    ) -> None:
        """Run every request; returns when all are finished, or soon after `stop` is set.

        `finish` is called once per request, from a thread of the engine's own.
        """
        self._began = time.perf_counter()
        delivery = Delivery(self.tokenizer, finish)
        self._feed = feed = Feed(
            requests,
            self.tokenizer,
            self.plan.context,
            self._inspected.rope_sides,
            truncate=self.options.on_overflow == "truncate_left",
            refuse=delivery.put,
            stop=stop,
        )
        try:
            self._share_prefix(feed)
            with torch.inference_mode():
                while not stop.is_set() and self._refill(feed):
                    self._pass(delivery, on_step)
        except BaseException:
            stop.set()
            raise
        finally:
            feed.close()
            delivery.close()

    def snapshot(self) -> EngineSnapshot:
        """How things stand, cheaply; may be called from any thread."""
        rooms = self._feed.waiting_rooms if self._feed else []
        expected = self._scheduler.lengths.expected
        on_gpu = self.device.type == "cuda"
        return EngineSnapshot(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(rooms),
            prompt_tokens=self._accounts.prompt_tokens,
            output_tokens=self._accounts.output_tokens,
            predicted_remaining_tokens=self._scheduler.expected_tokens()
            + sum(expected(room) for room in rooms),
            gpu_bytes=torch.cuda.memory_reserved(self.device) if on_gpu else 0,
            gpu_budget=self.hardware.device_memory.bytes if on_gpu else 0,
            cpu_bytes=psutil.Process().memory_info().rss,
            cpu_budget=self.hardware.host_memory.bytes,
        )

    def summary(self) -> EngineSummary:
        """The run so far in numbers."""
        a = self._accounts
        on_gpu = self.device.type == "cuda"
        return EngineSummary(
            passes=a.passes,
            seconds=a.seconds,
            prompt_tokens=a.prompt_tokens,
            output_tokens=a.output_tokens,
            shared_tokens=a.shared_tokens,
            preemptions=self._scheduler.preemptions,
            flops=a.flops,
            flops_per_s=a.flops / a.seconds if a.seconds else 0.0,
            bound_share=min(1.0, a.bound_s / a.seconds) if a.seconds else 0.0,
            binding=a.binding,
            idle_s=0.0,
            peak_gpu_bytes=torch.cuda.max_memory_reserved(self.device) if on_gpu else 0,
            peak_cpu_bytes=peak_rss_bytes(),
        )

    def describe(self) -> list[str]:
        """A few lines for people: what runs, on what, with which sizes and bytes."""
        shape, plan = self.shape, self.plan
        arenas = ", ".join(f"{k} {v / 2**20:,.0f} MiB" for k, v in plan.arenas.items() if v)
        return [
            f"{type(self._inspected.cut.model).__name__}, {shape.parameters / 1e6:,.1f} M "
            f"parameters in {str(self._inspected.dtype).removeprefix('torch.')} on {self.device}, "
            f"{self.kernel.name} attention",
            f"up to {plan.batch_size:,} sequences together, {plan.prefill_tokens:,} prefill tokens "
            f"a pass, contexts to {plan.context:,} tokens",
            f"memory planned: {arenas}; {'; '.join(plan.reasons)}",
        ]

    def close(self) -> None:
        """Let go of the model and the cache."""
        self._cache.layers.clear()
        self._inspected.cut.layers.clear()

    def _share_prefix(self, feed: Feed) -> None:
        feed.wait_for(PREFIX_SAMPLE)
        self._scheduler.prefix.find(feed.peek(PREFIX_SAMPLE))

    def _refill(self, feed: Feed) -> bool:
        """Move ready sequences to the scheduler; False when all work is done."""
        scheduler = self._scheduler
        wanted = 2 * self.plan.batch_size - len(scheduler.waiting)
        for sequence in feed.take(max(0, wanted), wait=scheduler.idle):
            scheduler.add(sequence)
        return not scheduler.idle

    def _pass(self, delivery: Delivery, on_step: Callable[[StepRecord], None]) -> None:
        started = time.perf_counter()
        block = self._scheduler.next_block()
        sides = self._inspected.rope_sides
        batches = [
            pack(
                segments,
                self._cache,
                self.device,
                pad_position=sides.pad_position(segments[0].sequence.rope_side),
            )
            for segments in block
        ]
        drawn: list[tuple[Sequence, int, TokenScores | None]] = []

        def sample(batch: Batch, logits: torch.Tensor) -> None:
            chosen = self._sampler.choose(logits, batch.logit_sequences)
            for i, sequence in enumerate(batch.logit_sequences):
                drawn.append((sequence, chosen.tokens[i], chosen.logprobs.get(i)))

        run_pass(self._inspected.cut, self._weights, batches, sample)
        self._scheduler.advance(block)
        for sequence, token, logprobs in drawn:
            append_token(sequence, token, logprobs, self._ends, self.tokenizer)
            if sequence.finish_reason is not None:
                self._scheduler.finish(sequence)
                self._sampler.forget(sequence)
                delivery.put(sequence)
        self._account(block, batches, started, len(drawn), on_step)

    def _account(
        self,
        block: list[list[Segment]],
        batches: list[Batch],
        started: float,
        drawn: int,
        on_step: Callable[[StepRecord], None],
    ) -> None:
        elapsed = time.perf_counter() - started
        works = [b.work() for b in batches]
        bounds = [bound_of_pass(self.shape, self.rates, w) for w in works]
        accounts = self._accounts
        accounts.add(self.shape, works, bounds, elapsed)
        # A preempted sequence computes its own output again: only prompts count as prompt tokens.
        decode = sum(s.tokens for x in block for s in x if s.tokens == 1)
        prefill = sum(s.tokens for x in block for s in x) - decode
        accounts.output_tokens += drawn
        accounts.prompt_tokens = self._scheduler.prompt_tokens
        accounts.shared_tokens = self._scheduler.shared_tokens
        on_step(
            StepRecord(
                run=1,
                iteration=accounts.passes,
                phase="decode" if not prefill else "mixed" if decode else "prefill",
                started_s=started - self._began,
                elapsed_s=elapsed,
                batches=len(batches),
                sequences=sum(len(x) for x in block),
                prefill_tokens=prefill,
                decode_tokens=decode,
                context_tokens=sum(w.context_tokens for w in works),
                compute_s=elapsed,
                predicted_s=sum(b.bound_s for b in bounds),
                bound_s=sum(b.bound_s for b in bounds),
            )
        )


def _workload(options: EngineOptions) -> Workload:
    longest = None
    if options.prompt_bytes is not None:
        # A token stands for a byte at least; templates and special tokens add some.
        longest = options.prompt_bytes + 1024 + options.max_tokens
    return Workload(options.rows, options.sampling_n, longest)


def _beside(weight_bytes: int, device: torch.device) -> int:
    """Bytes of the process that are in no arena: the interpreter and its imports."""
    if device.type == "cuda":
        return 0
    return max(0, psutil.Process().memory_info().rss - weight_bytes)


def _refuse_too_large(source: ModelSource, hardware: Hardware) -> None:
    """Refuse before reading weights that cannot fit."""
    size = checkpoint_bytes(source)
    budget = hardware.device_memory
    if size is not None and size > budget.bytes:
        raise DoesNotFitError(
            f"does not fit: the weights at {source.path} take {size / 2**30:,.1f} GiB, but "
            f"{budget.limit} allows {budget.bytes / 2**30:,.1f} GiB. Weights larger than the "
            "memory cannot be streamed by this version yet; use a smaller model or more memory."
        )


def _prepack(inspected: InspectedModel, plan: Plan) -> None:
    cut = inspected.cut
    for layer in cut.layers:
        prepack(layer, plan.prefill_tokens)
    # A tied head shares its weight with the embedding, which looks rows up in the plain one.
    head = cut.model.get_output_embeddings()  # type: ignore[operator]
    embedding = cut.model.get_input_embeddings()  # type: ignore[operator]
    if head is not None and type(head) is torch.nn.Linear:
        prepack(head, plan.batch_size, keep_weight=head.weight is embedding.weight)


__all__ = ["DoesNotFitError", "Engine", "EngineOptions", "ModelRefusedError"]
