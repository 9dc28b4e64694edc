"""The engine: the loop that turns requests into completions, with a loaded model and its plan."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

import psutil
import torch

from tightrun.core import Completion, Request, RunNote, StepRecord, TraceSpan, Written
from tightrun.policies.admission import OutputLengths
from tightrun.policies.cost import bound_of_block, pass_flops
from tightrun.policies.output_shares import Learnt
from tightrun.policies.plan import DoesNotFitError
from tightrun.policies.planner import JobPlan
from tightrun.policies.profile import Known as ModelKnown
from tightrun.runtime.accounts import (
    Accounts,
    EngineSnapshot,
    EngineSummary,
    peak_rss_bytes,
)
from tightrun.runtime.allocator import give_back_cached_memory
from tightrun.runtime.assembly import assemble
from tightrun.runtime.batch import Batch, Segment
from tightrun.runtime.delivery import Delivery
from tightrun.runtime.feed import Feed
from tightrun.runtime.finishing import TokenScores, append_token
from tightrun.runtime.going_on import Known, drawn_since
from tightrun.runtime.host_pressure import HostPressure
from tightrun.runtime.loaded_model import LoadedModel, Notify
from tightrun.runtime.loading import load
from tightrun.runtime.loading_offloaded import Shaken
from tightrun.runtime.memory_failures import (
    MemoryFailure,
    PassAbandonedError,
    PassOutOfMemoryError,
)
from tightrun.runtime.memory_watch import MemoryWatch
from tightrun.runtime.model import ModelRefusedError
from tightrun.runtime.options import EngineOptions
from tightrun.runtime.pass_meter import PassMeter, step_of
from tightrun.runtime.pass_plan import PlannedPass
from tightrun.runtime.plan_watch import PassDone
from tightrun.runtime.sampling import Sampler
from tightrun.runtime.second_try import at_most_twice
from tightrun.runtime.sequence import Sequence
from tightrun.runtime.steering import Steering
from tightrun.runtime.survival import Survival
from tightrun.runtime.warm_up import widest_pass, widest_streamed_pass

PREFIX_SAMPLE = 64

OnTrace = Callable[[list[TraceSpan]], None]
OnNote = Callable[[RunNote], None]


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
        self._accounts = Accounts()
        self._on_note: OnNote = _unheard
        self._feed: Feed | None = None
        self._delivery: Delivery | None = None
        self._left: list[Sequence] = []
        plan = loaded.plan
        lengths = OutputLengths(options.expected_output)
        parts = assemble(options, loaded, lengths)
        self._cache, self._scheduler = parts.cache, parts.scheduler
        self._stages, self._distributor = parts.stages, parts.distributor
        self._runner = parts.runner
        self._survival = Survival(plan.widest_batch, self._runner.hold)
        budget = loaded.hardware.host_memory.bytes
        self._pressure = HostPressure(MemoryWatch(), budget, loaded.device, self._survival)
        self._meter = PassMeter(loaded.accelerator, loaded.weights, parts.links)
        foresight = loaded.foresight()
        chosen = options.batch_size is not None or options.batches is not None
        self._steering = Steering(
            foresight,
            loaded.predicted or foresight.predicted(),
            self._scheduler,
            self._distributor.corrections,
            replans=options.policy == "adaptive" and not chosen,
        )

    @classmethod
    def load(cls, options: EngineOptions, notify: Notify, shaken: Shaken | None = None) -> Engine:
        """Load and prove the model, probe the device, plan, and be ready to run.

        Where memory runs out on the way, once more with a smaller budget. Raises ModelRefusedError
        for a model that cannot be run exactly, DoesNotFitError with the sum if memory does not
        suffice, ValueError for a device that is not there. `shaken` is a test's.
        """
        engine = at_most_twice(lambda asked: cls._load(asked, notify, shaken), options, notify)
        # A full collection walks every object of torch and stalls links and loop for a fifth of a
        # second; what loading made stays until the end anyway.
        gc.collect()
        gc.freeze()
        return engine

    @classmethod
    def _load(cls, options: EngineOptions, notify: Notify, shaken: Shaken | None) -> Engine:
        loaded = load(options, notify, shaken)
        try:
            engine = cls(options, loaded)
            if engine.device.type == "cuda":
                # On a CPU memory is the system's, and the first real pass does as well.
                notify("warm-up: the widest pass once")
                engine.warm_up()
        except BaseException:
            loaded.close()
            raise
        return engine

    def warm_up(self) -> None:
        """Compute the widest pass once, so that the allocator has all it will ever need."""
        if self.plan.offloads:
            widest_streamed_pass(self._scheduler, self.plan, self._compute_once)
        else:
            widest_pass(self._loaded.cut, self._cache, self.plan, self.device)

    def run(
        self,
        requests: Iterable[Request],
        finish: Callable[[Completion], None],
        on_step: Callable[[StepRecord], None],
        stop: threading.Event,
        on_trace: OnTrace | None = None,
        on_note: OnNote | None = None,
    ) -> None:
        """Run every request; returns when all are finished, or soon after `stop` is set: the pass
        under way is then given up.

        `finish` is called once per request, from a thread of the engine's own. `on_trace` is told
        after each pass, and after its step, what the lanes of the device did, and `on_note` now
        and then what a person should know.
        """
        self._on_note = on_note or _unheard
        self._meter.begin_run()
        self._delivery = delivery = Delivery(self._loaded.tokenizer, finish)
        self._left = []
        self._feed = feed = Feed(
            requests,
            self._loaded.tokenizer,
            # Where memory holds fewer tokens than the context, no longer sequence can run.
            min(self.plan.context, self.plan.longest_tokens),
            self.shape.vocab,
            self._loaded.rope_sides,
            ends=self._loaded.ends,
            truncate=self.options.on_overflow == "truncate_left",
            deliver=delivery.put,
            stop=stop,
        )
        try:
            self._share_prefix(feed)
            with torch.inference_mode():
                while not stop.is_set() and self._refill(feed):
                    passed = self._pass(delivery, on_step, stop)
                    if passed and on_trace is not None:
                        on_trace(self._meter.spans(self._accounts.passes))
        except BaseException:
            stop.set()
            raise
        finally:
            self._left = self._scheduler.begun()
            self._scheduler.abandon()
            feed.close()
            delivery.close()

    def unfinished(self, known: Known) -> list[Written]:
        """What the rows that have not finished have drawn beyond what is `known` of each sample.

        Cheap; may be called from any thread, and after `run` for what a stop has left.
        """
        finished = self._delivery.begun() if self._delivery else []
        return list(drawn_since(known, (*self._left, *self._scheduler.begun(), *finished)))

    def snapshot(self) -> EngineSnapshot:
        """How things stand, cheaply; may be called from any thread."""
        rooms = self._feed.waiting_rooms if self._feed else []
        lengths = self._scheduler.lengths
        memory = self._loaded.accelerator.memory
        on_gpu = self.device.type == "cuda"
        on_device = memory.used if self._loaded.accelerator.kind == "emulated" else 0
        return EngineSnapshot(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(rooms),
            prompt_tokens=self._accounts.prompt_tokens,
            output_tokens=self._accounts.output_tokens,
            predicted_remaining_tokens=self._scheduler.expected_tokens()
            + round(sum(map(lengths.remaining, rooms))),
            gpu_bytes=torch.cuda.memory_reserved(self.device) if on_gpu else on_device,
            gpu_budget=memory.budget if on_gpu or on_device else 0,
            cpu_bytes=psutil.Process().memory_info().rss,
            cpu_budget=self._loaded.hardware.host_memory.bytes,
            planned_output_tokens_per_s=self._steering.planned_output_tokens_per_s,
            mean_output_tokens=lengths.mean_tokens,
            planned_seconds=self._steering.planned_seconds,
        )

    def summary(self) -> EngineSummary:
        """The run so far in numbers."""
        a = self._accounts
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
            idle_s=a.idle_s,
            peak_gpu_bytes=self._peak_gpu_bytes(),
            peak_cpu_bytes=peak_rss_bytes(),
            h2d_bytes_per_s=a.h2d_bytes / a.seconds if a.seconds else 0.0,
            d2h_bytes_per_s=a.d2h_bytes / a.seconds if a.seconds else 0.0,
            disk_bytes_per_s=a.disk_bytes / a.seconds if a.seconds else 0.0,
            recompute_ratio=a.recomputed_tokens / max(1, a.offloaded_tokens),
            recompute_form=self._distributor.form if a.recomputed_tokens else "",
            comparison=self._steering.compared(),
            learnt=self._scheduler.lengths.known,
        )

    def known(self) -> ModelKnown | None:
        """What a later run of this model on this machine need not find out again, if anything."""
        return self._loaded.known

    def remember(self, learnt: Learnt) -> None:
        """Begin with the output lengths that an earlier run of the job has learnt."""
        self._scheduler.lengths.remember(learnt)

    def job_plan(self) -> JobPlan | None:
        """What was decided for the run, and why; None for a model that has no prediction."""
        return self._loaded.job_plan()

    def describe(self) -> list[str]:
        """A few lines for people: what runs, on what, with which sizes and bytes."""
        return self._loaded.describe()

    def close(self) -> None:
        """Let go of the model and the cache, and end the links."""
        gc.unfreeze()
        self._loaded.close()
        self._cache.let_go()
        self._loaded.cut.layers.clear()

    def _peak_gpu_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device)
        accelerator = self._loaded.accelerator
        return accelerator.memory.peak if accelerator.kind == "emulated" else 0

    def _share_prefix(self, feed: Feed) -> None:
        feed.wait_for(PREFIX_SAMPLE)
        self._scheduler.prefix.find(feed.peek(PREFIX_SAMPLE))

    def _refill(self, feed: Feed) -> bool:
        """Move ready sequences to the scheduler; False when all work is done."""
        scheduler = self._scheduler
        wanted = 2 * self.plan.sequences - len(scheduler.waiting)
        for sequence in feed.take(max(0, wanted), wait=scheduler.idle):
            scheduler.add(sequence)
        return not scheduler.idle

    def _pass(
        self, delivery: Delivery, on_step: Callable[[StepRecord], None], stop: threading.Event
    ) -> bool:
        """The next pass; False if it was given up."""
        started = self._loaded.accelerator.now()
        self._scheduler.alone = self._survival.alone
        block = self._scheduler.next_block()
        drawn: list[tuple[Sequence, int, TokenScores | None]] = []

        def sample(batch: Batch, logits: torch.Tensor) -> None:
            chosen = self._sampler.choose(logits, batch.logit_sequences)
            for i, sequence in enumerate(batch.logit_sequences):
                drawn.append((sequence, chosen.tokens[i], chosen.logprobs.get(i)))

        planned, failure = None, None
        try:
            planned = self._runner.run(block, sample, stop.is_set)
        except PassOutOfMemoryError as error:
            failure = error.failure
        except PassAbandonedError:
            pass
        if planned is None:
            self._lose_pass(started, failure, delivery)
            return False
        self._survival.passed(max(b.tokens for b in planned.batches), self._on_note)
        self._scheduler.advance(block)
        for sequence, token, logprobs in drawn:
            append_token(sequence, token, logprobs, self._loaded.ends, self._loaded.tokenizer)
            if sequence.finish_reason is not None:
                self._scheduler.finish(sequence)
                self._sampler.forget(sequence)
                delivery.put(sequence)
        self._account(block, planned, started, len(drawn), on_step)
        self._pressure.look(self._on_note)
        return True

    def _lose_pass(self, started: float, failure: MemoryFailure | None, delivery: Delivery) -> None:
        # Its time is part of the run, what its lanes did is part of no pass.
        self._accounts.lose(self._loaded.accelerator.now() - started)
        self._meter.read()
        if failure is None:
            return
        # What the pass has made is young; a full collection takes a fifth of a second.
        gc.collect(1)
        give_back_cached_memory(self.device)
        lost = self._survival.failed(failure, self._on_note)
        if lost is not None:
            self._scheduler.drop(lost)
            self._sampler.forget(lost)
            delivery.put(lost)

    def _compute_once(self, block: list[list[Segment]]) -> None:
        def widest(batch: Batch, logits: torch.Tensor) -> None:
            rows = logits[:1].expand(self.plan.batch_size, -1).contiguous()
            del batch, rows

        self._runner.run(block, widest)

    def _account(
        self,
        block: list[list[Segment]],
        planned: PlannedPass,
        started: float,
        drawn: int,
        on_step: Callable[[StepRecord], None],
    ) -> None:
        elapsed = self._loaded.accelerator.now() - started
        traffic = self._meter.read()
        measured = self._meter.measured(planned, elapsed, traffic)
        as_planned = self._distributor.learn(measured)
        works = [b.work() for b in planned.batches]
        works[0] = replace(
            works[0],
            weight_bytes_in=planned.load.weight_bytes_in,
            kv_bytes_in=traffic.kv_bytes_in,
            kv_bytes_out=traffic.kv_bytes_out,
            disk_bytes=planned.load.weight_bytes_disk,
        )
        bound = bound_of_block(self.shape, self._loaded.rates, works)
        accounts = self._accounts
        flops = sum(pass_flops(self.shape, work) for work in works)
        accounts.add(flops, bound, elapsed, traffic)
        accounts.offloaded_tokens += planned.offloaded_tokens
        accounts.recomputed_tokens += planned.recomputed_tokens
        accounts.output_tokens += drawn
        # A preempted sequence computes its own output again: only prompts count as prompt tokens.
        accounts.prompt_tokens = self._scheduler.prompt_tokens
        accounts.shared_tokens = self._scheduler.shared_tokens
        step = step_of(
            accounts.passes,
            block,
            planned,
            traffic,
            started_s=started - self._meter.began_s,
            elapsed_s=elapsed,
            bound_s=bound.bound_s,
        )
        on_step(step)
        done = PassDone(as_planned, measured, bound, flops, step)
        self._steering.passed(done, drawn, self._on_note)


def _unheard(note: RunNote) -> None:
    """Where nobody listens, what happens is still in the summary."""
    del note


__all__ = ["DoesNotFitError", "Engine", "EngineOptions", "ModelRefusedError"]
