"""The documentation is accurate: its snippets run, its commands, links, paths and tests exist."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
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
    "CHANGELOG.md",
    "SECURITY.md",
    "examples/README.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))),
)


def read(page: str) -> str:
    """Return the text of a page."""
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
    """A page names existing commands of ``3ox`` only."""
    named = set(re.findall(r"`3ox ([a-z]+)", read(page))) | set(
        re.findall(r"^\$ 3ox ([a-z]+)", read(page), re.MULTILINE)
    )
    # A guide may add a command; tests/deploy/test_writing.py follows it.
    assert named <= MODULES.keys() | NEW_COMMANDS, named - MODULES.keys()


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_path_leads_somewhere(page: str) -> None:
    """Links and module paths name existing files."""
    text = read(page)
    for link, fragment in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        target = (ROOT / page).parent / link if link else ROOT / page
        assert "://" in link or target.exists(), link
        assert not fragment or fragment in anchors(target), f"{link}#{fragment}"
    for path in re.findall(r"`((?:ops|middleware|actors|ingress|tests)/[\w/.]+\.(?:py|lua))`", text):
        exists = (ROOT / path).exists() or (ROOT / "tests" / path).exists()
        assert exists or path in new_files(), path


@pytest.mark.parametrize("page", sorted({*PAGES} - {"CHANGELOG.md"}))  # it also names what was removed
def test_every_module_and_function_that_is_named_exists(page: str) -> None:
    """Dotted names of our packages can be imported."""
    for name in re.findall(r"`((?:ops|middleware|actors|ingress)(?:\.\w+)+)`", read(page)):
        try:
            import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(import_module(module), attribute), name


def test_every_page_that_the_code_names_exists() -> None:
    """Help texts, comments and deployment files name existing pages only."""
    folders = [ROOT / name for name in ("ops", "middleware", "actors", "ingress", "tests", "examples")]
    kinds = {".py", ".lua", ".html", ".js", ".toml", ".yaml", ".yml", ".service", ".example", ".md"}
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in kinds]
    for file in [*files, ROOT / "Makefile", ROOT / "pyproject.toml"]:
        for page in re.findall(r"(?<![\w/.])docs/[\w/-]+\.md", file.read_text()):
            assert (ROOT / page).exists(), f"{file}: {page}"


def test_every_test_that_reliability_names_exists() -> None:
    """Each fault names an existing test."""
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", read("docs/explanation/reliability.md"))
    assert len(named) > 20
    for file, test in named:
        source = ROOT / "tests" / file
        assert source.exists(), file
        assert f"def {test}" in source.read_text(), f"{file}::{test}"


def test_the_state_diagram_shows_every_transition() -> None:
    """docs/reference/states.md draws exactly the table of transitions."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+):", read("docs/reference/states.md"), re.MULTILINE))
    table = {(str(start), str(end)) for start, ends in TRANSITIONS.items() for end in ends}
    assert drawn == table
    assert {state for pair in drawn for state in pair} == set(State)
