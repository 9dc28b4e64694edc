"""What to say of an error, and the code to end with."""

from __future__ import annotations

from tightrun.cli.exit_codes import ExitCode


def explain(error: Exception) -> tuple[str, ExitCode]:
    """A text for the person and the exit code.

    What a person can mend is said in its own words; any other error is our own or the machine's,
    and is named with its kind and the place of its traceback.
    """
    from tightrun.cli.engine_seam import RefusedError
    from tightrun.io.input_types import UnkeptError
    from tightrun.io.inputs import InputError
    from tightrun.io.job import JobError
    from tightrun.io.lock import LockedError, LostError
    from tightrun.io.outputs import OutputError, UnwritableError
    from tightrun.io.patience import RemoteError
    from tightrun.policies.plan import DoesNotFitError

    if isinstance(error, JobError):
        return str(error), ExitCode.USAGE
    if isinstance(error, (LockedError, LostError)):
        return f"tightrun: {error}", ExitCode.LOCKED
    if isinstance(error, (UnkeptError, UnwritableError, RemoteError)):
        return f"tightrun: {error}", ExitCode.INTERNAL_ERROR
    if isinstance(error, (InputError, OutputError, RefusedError)):
        return f"tightrun: {error}", ExitCode.USAGE
    if isinstance(error, DoesNotFitError):
        return f"tightrun: {error}", ExitCode.DOES_NOT_FIT
    notes = "".join(f". {note}" for note in getattr(error, "__notes__", ()))
    cause = " ".join(str(error).split()) or "no message"
    return f"tightrun: {type(error).__name__}: {cause}{notes}", ExitCode.INTERNAL_ERROR
