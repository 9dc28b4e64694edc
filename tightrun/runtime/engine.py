"""The engine: the loop that turns requests into completions, with a loaded model and its plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import psutil
import torch

from tightrun.core import Completion, Request, StepRecord
from tightrun.policies.cost import bound_of_pass
from tightrun.policies.plan import DoesNotFitError
from tightrun.runtime.accounts import Accounts, EngineSnapshot, EngineSummary, peak_rss_bytes
from tightrun.runtime.batch import Batch, Segment, pack
from tightrun.runtime.delivery import Delivery
from tightrun.runtime.feed import Feed
from tightrun.runtime.finishing import TokenScores, append_token
from tightrun.runtime.kernel_choice import is_token_major
from tightrun.runtime.kv_cache import KVCache
from tightrun.runtime.loading import LoadedModel, Notify, load
from tightrun.runtime.loop import run_pass
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.prefix import SharedPrefix
from tightrun.runtime.sampling import Sampler
from tightrun.runtime.scheduler import Scheduler
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.warm_up import widest_pass
from tightrun.runtime.weights import ResidentWeights

PREFIX_SAMPLE = 64


class Engine:
    """Runs requests through one model. Make it with `Engine.load`; one `run` at a time."""

    def __init__(self, options: EngineOptions, loaded: LoadedModel) -> None:
        self.options = options
        self.plan = loaded.plan
        self.shape = loaded.shape
        self.device = loaded.device
        self.kernel = loaded.kernel
        self._loaded = loaded
        self._sampler = Sampler(loaded.ends)
        self._weights = ResidentWeights()
        self._accounts = Accounts()
        self._began = time.perf_counter()
        self._feed: Feed | None = None
        self._cache = KVCache(
            loaded.shape,
            loaded.plan.kv_blocks,
            loaded.plan.block_tokens,
            loaded.plan.batch_size + 1,  # one more place for the shared prefix
            loaded.plan.context,
            loaded.dtype,
            loaded.device,
            token_major=is_token_major(loaded.kernel),
            poison=options.poison,
        )
        self._scheduler = Scheduler(loaded.plan, self._cache, SharedPrefix(self._cache))

    @classmethod
    def load(cls, options: EngineOptions, notify: Notify) -> Engine:
        """Load and prove the model, probe the device, plan, and be ready to run.

        Raises ModelRefusedError for a model that cannot be run exactly, DoesNotFitError with the
        sum if memory does not suffice, ValueError for a device that is not there.
        """
        engine = cls(options, load(options, notify))
        if engine.device.type == "cuda":
            # On a CPU memory is the system's, and the first real pass does as well.
            notify("warm-up: the widest pass once")
            widest_pass(engine._loaded.cut, engine._cache, engine.plan, engine.device)
        return engine

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
        delivery = Delivery(self._loaded.tokenizer, finish)
        self._feed = feed = Feed(
            requests,
            self._loaded.tokenizer,
            # Where memory holds fewer tokens than the context, no longer sequence can run.
            min(self.plan.context, self.plan.kv_tokens),
            self.shape.vocab,
            self._loaded.rope_sides,
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
            self._scheduler.abandon()
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
            gpu_budget=self._loaded.hardware.device_memory.bytes if on_gpu else 0,
            cpu_bytes=psutil.Process().memory_info().rss,
            cpu_budget=self._loaded.hardware.host_memory.bytes,
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
            bound_share=a.bound_s / a.seconds if a.seconds else 0.0,
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
            f"{type(self._loaded.cut.model).__name__}, {shape.parameters / 1e6:,.1f} M "
            f"parameters in {str(self._loaded.dtype).removeprefix('torch.')} on {self.device}, "
            f"{self.kernel.name} attention",
            f"up to {plan.batch_size:,} sequences together, {plan.prefill_tokens:,} prefill tokens "
            f"a pass, contexts to {plan.context:,} tokens",
            f"memory planned: {arenas}; {'; '.join(plan.reasons)}",
        ]

    def close(self) -> None:
        """Let go of the model and the cache."""
        self._cache.layers.clear()
        self._loaded.cut.layers.clear()

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
        sides = self._loaded.rope_sides
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

        run_pass(self._loaded.cut, self._weights, batches, sample)
        self._scheduler.advance(block)
        for sequence, token, logprobs in drawn:
            append_token(sequence, token, logprobs, self._loaded.ends, self._loaded.tokenizer)
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
        bounds = [bound_of_pass(self.shape, self._loaded.rates, w) for w in works]
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
                bound_s=sum(b.bound_s for b in bounds),
            )
        )


__all__ = ["DoesNotFitError", "Engine", "EngineOptions", "ModelRefusedError"]
