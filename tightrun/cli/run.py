"""A run of one job from its first byte to its summary: scan, load, run, seal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from tightrun.cli import units
from tightrun.cli.beats import Beat, beating
from tightrun.cli.earlier_end import ALIVE_EVENT, EarlierEnd, earlier_end, memory_figures
from tightrun.cli.engine_seam import Engine, EngineFactory, RefusedError
from tightrun.cli.generation import Generation, seal_finished
from tightrun.cli.holding import Holding, IfLocked
from tightrun.cli.learnt import learnt_before, manifest_before
from tightrun.cli.load_engine import LOADING, WARM_UP
from tightrun.cli.outcome import (
    Span,
    as_left,
    left_alone,
    left_to_others,
    nothing_left,
    run_record,
    stopped_before,
    summarise,
)
from tightrun.cli.output_at import name_of, place_of, refuse_shared
from tightrun.cli.pass_log import PassLog
from tightrun.cli.plan_json import job_plan_json
from tightrun.cli.publish import Published
from tightrun.cli.report import SUMMARY_EVENT, events_of, latest_summary
from tightrun.cli.start_engine import start_engine
from tightrun.cli.stopping import Stop, StoppedError, time_limit
from tightrun.cli.summary import Summary, short_path
from tightrun.cli.traceback_text import kept_words, traceback_text
from tightrun.cli.views import View
from tightrun.io.durable import Disk
from tightrun.io.events import EventLog
from tightrun.io.inputs import InputError, Scan, scan_inputs
from tightrun.io.job import Job, JobError, load_job
from tightrun.io.manifest import Manifest
from tightrun.io.outputs import OutputError, OutputWriter, Resume, RunInfo
from tightrun.io.owner import BEAT_S, Here
from tightrun.io.quantities import Tolerance
from tightrun.io.reports import ReportWriter
from tightrun.io.sharing import Sharing
from tightrun.io.trace import TraceWriter
from tightrun.policies.plan import DoesNotFitError
from tightrun.runtime.memory_watch import MemoryWatch

PROGRESS_EVENT_S = 30.0
COMPLAINTS_TO_SAY = 20
USER_ERRORS = (JobError, InputError, OutputError, RefusedError, DoesNotFitError)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the flags of `tightrun run` say beside the job file."""

    limit: int | None = None
    show_prompts: int = 0
    resume: Resume = "auto"
    allow_failures: Tolerance | None = None
    if_locked: IfLocked = "fail"
    share: bool = False
    retry: frozenset[str] = frozenset()


def run_job(
    job: Job | str | Path | Mapping[str, Any],
    options: RunOptions | None = None,
    *,
    view: View,
    stop: Stop | None = None,
    engine_factory: EngineFactory = start_engine,
    stdin: BinaryIO | None = None,
    here: Here | None = None,
) -> Summary:
    """Runs a job to its end, or to its stop, and returns what it came to.

    Rows that fail are rows of the output and make `exit_code` 3 of the summary, not an exception.
    `here` is this process, by default as its own environment describes it.

    Raises one of `USER_ERRORS` (all ValueError) when the job cannot be run as it is. Any other
    error is our own or the machine's; its traceback is in events.jsonl.
    """
    loaded = job if isinstance(job, Job) else load_job(job)
    run = _Run(loaded, options or RunOptions(), view, stop or Stop(), engine_factory, stdin)
    return run.go(here or Here.of(os.environ))


class _Run:
    """What the phases of one run share."""

    def __init__(
        self,
        job: Job,
        options: RunOptions,
        view: View,
        stop: Stop,
        engine_factory: EngineFactory,
        stdin: BinaryIO | None,
    ) -> None:
        self._job, self._options, self._view, self._stop = job, options, view, stop
        self._engine_factory, self._stdin = engine_factory, stdin
        self._place = place_of(job.output.path)
        self._span = Span.begin()
        self._number = 1
        self._writer: OutputWriter | None = None
        self._generation: Generation | None = None
        self._earlier: Manifest | None = None
        self._watch = MemoryWatch()
        self._sharing: Sharing | None = None

    def go(self, here: Here) -> Summary:
        self._watch = MemoryWatch(here.root)
        share, place = self._options.share, self._place
        if share:
            refuse_shared(place)
        holding = Holding(place, here, self._view, self._stop, shared=share)
        with closing(holding), closing(Published(place, here, self._view, self._stop)) as published:
            asked = (self._options.resume, self._options.if_locked)
            try:
                if not (holding.take(*asked) and published.begin(*asked, holding)):
                    return left_alone(place)
            except StoppedError:
                return stopped_before(self._stop, place, None, self._span)
            self._sharing = holding.sharing
            return self._held(holding, published)

    def _held(self, holding: Holding, published: Published) -> Summary:
        self._view.title(title_of(self._job))
        self._earlier = manifest_before(self._place)
        end = self._end_before(holding)
        holding.make_way(self._options.resume)
        if end is not None:
            self._view.note(end.text)
        self._number = holding.run
        good = False
        try:
            with (
                time_limit(self._stop, self._job.limits.time),
                beating(
                    self._stop,
                    Beat(self._view.interval_s, self._tick),
                    Beat(PROGRESS_EVENT_S, self._log_progress),
                    Beat(BEAT_S, holding.renew),
                ),
            ):
                summary = published.finish(self._phases(published))
            good = True
        except Exception as error:
            if not isinstance(error, USER_ERRORS):
                self._log_error(error)
            raise
        finally:
            self._view.close(good=good)
        self._view.closing(summary)
        return summary

    @property
    def _joins(self) -> bool:
        """Whether others were at work on the output when this run came."""
        return self._sharing is not None and self._sharing.joins

    def _phases(self, published: Published) -> Summary:
        try:
            with self._stop.nothing_to_save():
                scan = self._scan()
            with self._writing(scan, published) as writer:
                published.follow(writer)
                if writer.already_complete:
                    summary = published.finish(latest_summary(self._place))
                    self._view.close(good=True)
                    self._view.note(self._why_nothing_is_run())
                    return left_to_others(summary) if writer.shared else summary
                self._say_what_is_done(writer)
                if writer.rows_done == writer.rows or writer.exhausted:
                    return self._seal_only(scan, writer)
                with self._stop.nothing_to_save():
                    engine = self._load(scan, writer)
                try:
                    return self._generate(scan, writer, engine)
                finally:
                    engine.close()
        except StoppedError:
            if self._stop.error is not None:
                raise self._stop.error from None
            before = stopped_before(self._stop, self._place, self._writer, self._span)
            summary = published.finish(before)
            self._view.close(good=False)
            return summary

    def _scan(self) -> Scan:
        if self._options.retry and self._earlier is None:
            where = name_of(self._place)
            raise OutputError(f"output.path: nothing was run at {where}; run the job first")
        self._view.phase("scan", "ids, lengths and types of the input")
        scan = scan_inputs(
            self._job,
            spool=self._place.input_spool,
            stdin=self._stdin,
            progress=lambda rows: self._view.detail(f"{units.rows(rows)} so far"),
            versions=self._earlier.input_versions
            if self._earlier is not None and self._options.resume == "auto"
            else None,
        )
        nbytes = units.size(sum(source.bytes for source in scan.sources))
        files = units.files(len(scan.sources))
        self._view.detail(f"{units.rows(scan.rows)} in {files}, {nbytes}")
        for warning in scan.warnings:
            self._view.note(warning)
        return scan

    @contextmanager
    def _writing(self, scan: Scan, published: Published) -> Iterator[OutputWriter]:
        writer = OutputWriter(
            self._job,
            scan,
            run_info=RunInfo(number=self._number, started=self._span.started),
            n=self._job.sampling.n,
            rows=self._options.limit,
            place=self._place,
            resume=self._options.resume,
            sharing=self._sharing,
            retry=self._options.retry,
            on_sealed=published.sealed,
        )
        self._writer = writer
        try:
            yield writer
        finally:
            writer.close(final=False)

    def _why_nothing_is_run(self) -> str:
        if not self._options.retry:
            return "this job is finished already; nothing was run"
        return f"no row has failed with {' or '.join(sorted(self._options.retry))}; nothing was run"

    def _say_what_is_done(self, writer: OutputWriter) -> None:
        done, complaints = writer.rows_done, writer.earlier.complaints
        if (done or writer.earlier.begun) and not self._joins:
            rows = units.rows(writer.rows)
            self._view.fact(f"resuming: {units.count(done)} of {rows} done")
        for complaint in complaints[:COMPLAINTS_TO_SAY]:
            self._view.note(complaint)
        if len(complaints) > COMPLAINTS_TO_SAY:
            self._view.note(f"and {len(complaints) - COMPLAINTS_TO_SAY:,} more; see events.jsonl")

    def _seal_only(self, scan: Scan, writer: OutputWriter) -> Summary:
        """Every row was finished by a run that did not come to write all of them to shards."""
        seal_finished(scan, self._job, writer, self._stop)
        self._seal(writer, complete=True)
        allowed = self._options.allow_failures
        summary = nothing_left(writer, self._place, self._span, allowed)
        summary = as_left(summary, writer)
        with closing(ReportWriter(self._place.report, self._number)) as reports:
            reports.run(run_record(summary, self._number, self._span.started))
        return summary

    def _load(self, scan: Scan, writer: OutputWriter) -> Engine:
        self._view.phase("load", short_path(Path(self._job.model.path)))
        learnt = learnt_before(self._earlier, writer.fingerprint_parts)
        engine = self._engine_factory(self._job, scan, writer.rows, self._notify, learnt)
        self._view.detail(engine.describe()[0])
        job_plan = engine.job_plan()
        planned = {} if job_plan is None else job_plan_json(job_plan)
        writer.set_plan({**planned, "description": engine.describe()})
        return engine

    def _notify(self, text: str) -> None:
        self._stop.check()
        if text.startswith(WARM_UP):
            self._view.phase(WARM_UP, text.removeprefix(WARM_UP).strip(" :"))
        elif text.startswith(LOADING):
            self._view.detail(text.removeprefix(LOADING).strip(" :"))
        else:
            self._view.note(text)

    def _generate(self, scan: Scan, writer: OutputWriter, engine: Engine) -> Summary:
        reports = ReportWriter(self._place.report, self._number)
        traced = self._place.trace_of(self._number) if self._joins else self._place.trace
        trace = TraceWriter(traced, self._number)
        generation = Generation(
            self._job, engine, writer, self._stop, self._view, self._options.show_prompts
        )
        self._view.phase("run")
        job_plan = engine.job_plan()
        if job_plan is not None:
            self._view.plan(job_plan)
        else:
            for line in engine.describe()[1:]:
                self._view.fact(line)
        with closing(reports), closing(trace), self._shown(generation):
            generation.run(scan, PassLog(reports, trace))
            self._view.detail(units.rows(generation.tally.done))
            writer.set_learnt(engine.summary().learnt.as_json())
            self._generation = None
            self._seal(writer, complete=generation.complete)
            allowed = self._options.allow_failures
            summary = summarise(generation, engine, self._stop, self._place, self._span, allowed)
            summary = as_left(summary, writer)
            reports.run(run_record(summary, self._number, self._span.started))
            writer.events.event(SUMMARY_EVENT, run=self._number, **summary.as_json())
            return summary

    @contextmanager
    def _shown(self, generation: Generation) -> Iterator[None]:
        """The generation is what the views and the log ask how far the run is."""
        self._generation = generation
        try:
            yield
        finally:
            self._generation = None

    def _seal(self, writer: OutputWriter, *, complete: bool) -> None:
        self._view.phase("seal", short_path(self._place.target), broke_off=not complete)
        writer.close(final=complete)
        if writer.state == "complete":
            files = units.files(len(writer.outputs))
            self._view.detail(f"{files} in {short_path(writer.outputs[0].parent)}")

    def _tick(self) -> None:
        generation = self._generation
        self._view.tick(None if generation is None else generation.progress())

    def _log_progress(self) -> None:
        generation, writer = self._generation, self._writer
        if writer is None:
            return
        about = {"run": self._number, "memory": memory_figures(self._watch)}
        if generation is None:
            writer.events.event(ALIVE_EVENT, **about)
        else:
            writer.events.event("progress", **about, **asdict(generation.progress()))

    def _end_before(self, holding: Holding) -> EarlierEnd | None:
        """How the run before this one ended, if it died."""
        earlier = self._earlier
        if earlier is None or earlier.state != "running" or not holding.died or self._joins:
            return None
        return earlier_end(events_of(self._place), self._watch, earlier.run)

    def _log_error(self, error: Exception) -> None:
        """Puts the traceback where the run's events are, and says so on the error itself."""
        try:
            Disk().make_folder(self._place.bookkeeping)
            log = EventLog(self._place.bookkeeping)
            log.event("error", error=kept_words(error), traceback=traceback_text(error))
        except OSError as refused:
            error.add_note(f"The traceback could not be kept: {refused}")
        else:
            error.add_note(f"The traceback is in {log.path}")


def title_of(job: Job) -> str:
    """What is run, and where its output goes, in one line."""
    source = job.path or job.input.dataset or ", ".join(job.input.path)
    target = name_of(place_of(job.output.path))
    return f"tightrun {version('tightrun')}  {short_path(Path(source))} -> {target}"
