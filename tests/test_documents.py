"""What the documents promise about the program."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tightrun.cli.exit_codes import ExitCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_exit_code() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert listed == set(ExitCode)


def test_the_readme_has_the_command_that_ci_runs() -> None:
    found = re.search(r"<!-- ci:.*?-->\n```bash\n(.*?)```", README, re.DOTALL)
    assert found
    assert "-m pytest" in found[1]


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_architecture_names_every_file() -> None:
    modules = {path.stem for path in (ROOT / "tightrun").glob("*/*.py")} - {"__init__"}
    named = set(re.findall(r"`([a-z0-9_]+)`", ARCHITECTURE))
    assert modules - named == set()


def test_the_architecture_names_no_file_that_is_gone() -> None:
    listed = ARCHITECTURE.partition("## The files")[2]
    named = set(re.findall(r"`([a-z0-9_]+)`", listed))
    modules = {path.stem for path in (ROOT / "tightrun").glob("*/*.py")}
    assert named - modules == set()


def test_the_architecture_is_short() -> None:
    assert len(ARCHITECTURE.splitlines()) < 100


def test_ci_is_a_bash_script_without_mistakes_of_syntax() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
