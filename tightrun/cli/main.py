"""The command line: what can be typed, and the code it ends with.

Nothing heavy is imported before a command needs it; `--help`, `validate` and `schema` never
load torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tightrun.cli import options
from tightrun.cli.arguments import UnknownCommandError, normalise
from tightrun.cli.exit_codes import ExitCode
from tightrun.cli.log_format import LogFormat
from tightrun.cli.quiet_libraries import quiet_libraries

app = typer.Typer(
    name="tightrun",
    help="Runs a large offline LLM job to its end on the hardware at hand.\n\n"
    "tightrun JOB.yaml is short for tightrun run JOB.yaml.",
    epilog="Exit codes: 0 every row good; 1 internal error; 2 usage, job file or input; 3 some "
    "rows failed; 4 does not fit; 5 the output is held by another run; 6 too many rows failed; 75 "
    "stopped by a signal or the time limit; 130 second interrupt.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the `tightrun` script; always leaves by SystemExit."""
    quiet_libraries(os.environ)
    try:
        given = sys.argv[1:] if arguments is None else arguments
        app(normalise(given, command_names()), prog_name="tightrun")
    except UnknownCommandError as error:
        typer.echo(f"tightrun: {error}", err=True)
        raise SystemExit(ExitCode.USAGE) from None
    except Exception as error:
        from tightrun.cli.errors import explain

        text, code = explain(error)
        typer.echo(text, err=True)
        raise SystemExit(code) from error


def command_names() -> list[str]:
    """The names of all commands, in the order of `--help`."""
    return [str(command.name) for command in app.registered_commands]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"tightrun {metadata.version('tightrun')}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """The flags that stand before a command."""


@app.command("run")
def _run(
    job: options.JobFile,
    set_: options.Set = None,
    limit: options.Limit = None,
    show_prompts: options.ShowPrompts = 0,
    print_config: options.PrintConfig = False,
    dry_run: options.DryRun = False,
    resume: options.Resume = options.ResumeChoice.AUTO,
    allow_failures: options.AllowFailures = None,
    if_locked: options.IfLocked = options.IfLockedChoice.FAIL,
    share: options.Share = False,
    workers: options.Workers = "1",
    log_format: options.Format = LogFormat.AUTO,
    quiet: options.Quiet = False,
) -> None:
    """Run a job to its end."""
    if print_config:
        from tightrun.io.job import load_job
        from tightrun.io.job import print_config as as_yaml

        typer.echo(as_yaml(load_job(job, overrides=set_ or ())), nl=False)
        return
    if dry_run:
        from tightrun.cli.plan import print_plan

        raise typer.Exit(print_plan(job, set_ or (), limit, as_json=False))
    if share and resume is options.ResumeChoice.NEW:
        raise typer.BadParameter(
            "--resume new would move aside what the others write; move the folder away before",
            param_hint="--share",
        )
    from tightrun.cli.perform import perform, perform_workers
    from tightrun.cli.run import RunOptions

    flags = RunOptions(
        limit,
        show_prompts,
        resume.value,
        options.tolerance(allow_failures),
        if_locked=if_locked.value,
        share=share,
    )
    args = (job, set_ or (), flags)
    number = options.number_of_workers(workers)
    if number == 1:
        raise typer.Exit(perform(*args, log_format=log_format, quiet=quiet))
    raise typer.Exit(perform_workers(*args, number, log_format=log_format, quiet=quiet))


@app.command("batch")
def _batch(
    input_file: Annotated[
        str, typer.Option("-i", "--input-file", metavar="IN", help="OpenAI batch file to read.")
    ],
    output_file: Annotated[
        str, typer.Option("-o", "--output-file", metavar="OUT", help="Batch output to write.")
    ],
    model: Annotated[str, typer.Option("--model", help="Local folder or hub name of the model.")],
    set_: options.Set = None,
    limit: options.Limit = None,
    resume: options.Resume = options.ResumeChoice.AUTO,
    allow_failures: options.AllowFailures = None,
    if_locked: options.IfLocked = options.IfLockedChoice.FAIL,
    log_format: options.Format = LogFormat.AUTO,
    quiet: options.Quiet = False,
) -> None:
    """Run an OpenAI batch file, without a job file."""
    from tightrun.cli.perform import perform
    from tightrun.cli.run import RunOptions

    job = {
        "model": model,
        "input": {"path": input_file, "format": "openai-batch"},
        "output": {"path": output_file, "format": "openai-batch"},
    }
    flags = RunOptions(
        limit, 0, resume.value, options.tolerance(allow_failures), if_locked=if_locked.value
    )
    raise typer.Exit(perform(job, set_ or (), flags, log_format=log_format, quiet=quiet))


@app.command("retry")
def _retry(
    job: options.JobFile,
    errors: options.Errors = "oom,internal",
    set_: options.Set = None,
    allow_failures: options.AllowFailures = None,
    if_locked: options.IfLocked = options.IfLockedChoice.FAIL,
    log_format: options.Format = LogFormat.AUTO,
    quiet: options.Quiet = False,
) -> None:
    """Run the rows of a job again that failed, and put them where they were."""
    from tightrun.cli.perform import perform
    from tightrun.cli.run import RunOptions

    flags = RunOptions(
        allow_failures=options.tolerance(allow_failures),
        if_locked=if_locked.value,
        retry=options.error_codes(errors),
    )
    raise typer.Exit(perform(job, set_ or (), flags, log_format=log_format, quiet=quiet))


@app.command("plan")
def _plan(
    job: options.JobFile,
    set_: options.Set = None,
    limit: options.Limit = None,
    hardware: options.HardwareFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what a job would do here, or on another machine, and how fast; run nothing."""
    from tightrun.cli.plan import print_plan

    code = print_plan(job, set_ or (), limit, as_json=as_json, machine_file=hardware)
    raise typer.Exit(code)


@app.command("validate")
def _validate(job: options.JobFile, set_: options.Set = None) -> None:
    """Check a job file and its input, without a model."""
    from tightrun.cli.validate import validate

    raise typer.Exit(validate(job, set_ or ()))


@app.command("schema")
def _schema() -> None:
    """Print the JSON Schema of the job file, for editors."""
    import json

    from tightrun.io.job import job_schema

    typer.echo(json.dumps(job_schema(), indent=2, ensure_ascii=False))


@app.command("init")
def _init(
    path: Annotated[
        Path, typer.Argument(metavar="JOB.yaml", help="Where to write it; - prints it.")
    ] = Path("job.yaml"),
) -> None:
    """Write a commented job file to start from."""
    from tightrun.cli.starter import write_starter

    write_starter(path)


@app.command("slurm")
def _slurm(
    job: options.JobFile,
    set_: options.Set = None,
    array: Annotated[
        int, typer.Option("--array", metavar="N", min=1, help="Tasks that share the rows.")
    ] = 1,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", metavar="N", min=0, help="GPUs of each task; a process for each."),
    ] = None,
    time: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Time of each task, as for sbatch.")
    ] = "24:00:00",
) -> None:
    """Print a batch script for Slurm: tightrun slurm job.yaml | sbatch."""
    from tightrun.cli.slurm import batch_script

    typer.echo(batch_script(job, set_ or (), array=array, gpus=gpus, time=time), nl=False)


@app.command("status")
def _status(out: options.OutputArgument, as_json: options.AsJson = False) -> None:
    """Say how far a job has come, from its output alone."""
    from tightrun.cli.status import print_status

    print_status(out, as_json=as_json)


@app.command("report")
def _report(out: options.OutputArgument) -> None:
    """Print the summary of the last run again, and each resource against the plan."""
    from tightrun.cli.report import print_report

    print_report(out)


@app.command("doctor")
def _doctor(
    job: Annotated[
        Path | None,
        typer.Argument(metavar="[JOB.yaml]", help="Measure this machine for the job's model."),
    ] = None,
    set_: options.Set = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure anew, whatever was measured before.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Say what tightrun finds here: versions, devices, memory limits, kernels; with a job file, how
    fast this machine is at what its model asks of it."""
    if job is not None:
        from tightrun.cli.doctor_job import print_rates

        print_rates(job, set_ or (), refresh=refresh, as_json=as_json)
        return
    if refresh or set_:
        raise typer.BadParameter(
            "only with a JOB.yaml", param_hint="--refresh" if refresh else "--set"
        )
    from tightrun.cli.doctor import print_findings

    print_findings(as_json=as_json)
