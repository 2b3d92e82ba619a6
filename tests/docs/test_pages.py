"""The documentation says what is: its snippets run, its commands and tests exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ingress.cli.main import MODULES
from middleware.job.states import TRANSITIONS, State
from tests.deploy.guide import NEW_COMMANDS, new_files
from tests.dispatch.conftest import bridge, shared_environ, shared_worker

__all__ = ["bridge", "shared_environ", "shared_worker"]

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))),
)


def read(page: str) -> str:
    """Give a page's text."""
    return (ROOT / page).read_text()


@pytest.mark.usefixtures("bridge")
def test_the_python_snippet_of_the_readme_runs(shared_environ: dict[str, str]) -> None:
    """Copied into a file, it dispatches a job to a running worker and prints its result."""
    snippets = re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL)
    assert snippets
    for snippet in snippets:
        ran = subprocess.run(
            [sys.executable, "-c", snippet],
            env=shared_environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "Linux" in ran.stdout or "Darwin" in ran.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_exists(page: str) -> None:
    """A page names no command of ``3ox`` that there is not."""
    named = set(re.findall(r"`3ox ([a-z]+)", read(page))) | set(
        re.findall(r"^\$ 3ox ([a-z]+)", read(page), re.MULTILINE)
    )
    # A guide may tell how to add a command or a file; tests/deploy/test_writing.py does so.
    assert named <= MODULES.keys() | NEW_COMMANDS, named - MODULES.keys()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_path_leads_somewhere(page: str) -> None:
    """Links to files, and paths of modules, name files that are there."""
    text = read(page)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:ops|middleware|actors|ingress|tests)/[\w/.]+\.(?:py|lua))`", text):
        there = (ROOT / path).exists() or (ROOT / "tests" / path).exists()
        assert there or path in new_files(), path


def test_every_test_that_reliability_names_exists() -> None:
    """A promise names its proof, and the proof is there."""
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", read("docs/explanation/reliability.md"))
    assert len(named) > 20
    for file, test in named:
        source = ROOT / "tests" / file
        assert source.exists(), file
        assert f"def {test}" in source.read_text(), f"{file}::{test}"


def test_the_state_diagram_shows_every_move() -> None:
    """docs/reference/states.md draws the table of transitions, no more and no less."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+):", read("docs/reference/states.md"), re.MULTILINE))
    table = {(str(start), str(end)) for start, ends in TRANSITIONS.items() for end in ends}
    assert drawn == table
    assert {state for pair in drawn for state in pair} == set(State)
