"""What is put into the arguments before they are parsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrun.cli.arguments import UnknownCommandError, normalise

COMMANDS = ("run", "validate", "schema")


def test_a_job_file_means_run() -> None:
    assert normalise(["job.yaml", "--limit", "5"], COMMANDS) == ["run", "job.yaml", "--limit", "5"]


def test_flags_before_the_job_file_mean_run() -> None:
    assert normalise(["--quiet", "job.yaml"], COMMANDS) == ["run", "--quiet", "job.yaml"]


@pytest.mark.parametrize("arguments", [["validate", "job.yaml"], ["--help"], ["--version"], []])
def test_commands_and_global_flags_stay(arguments: list[str]) -> None:
    assert normalise(arguments, COMMANDS) == arguments


def test_a_file_without_suffix_that_exists_is_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job").touch()
    monkeypatch.chdir(tmp_path)
    assert normalise(["job"], COMMANDS) == ["run", "job"]


def test_a_misspelt_command_is_guessed() -> None:
    with pytest.raises(UnknownCommandError, match="did you mean 'validate'"):
        normalise(["valdiate", "job.yaml"], COMMANDS)


def test_allow_failures_without_a_share_allows_all() -> None:
    assert normalise(["run", "job.yaml", "--allow-failures"], COMMANDS)[-1] == (
        "--allow-failures=100%"
    )


def test_allow_failures_never_takes_the_next_word_as_its_share() -> None:
    given = ["--allow-failures", "job.yaml"]
    assert normalise(given, COMMANDS) == ["run", "--allow-failures=100%", "job.yaml"]
