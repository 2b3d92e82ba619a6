"""``docs/how-to/projects.md`` is accurate: its settings are valid, its script and its snippet run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from ops.settings.load import load_settings
from tests.projects.conftest import Site, project
from tests.support import ROOT, threeox
from tests.tools import require_tool

PAGE = (ROOT / "docs/how-to/projects.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the blocks of one language."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found


def test_the_settings_are_valid(tmp_path: Path) -> None:
    """Each example is a valid 3ox.toml."""
    found = {}
    for text in blocks("toml"):
        (tmp_path / "3ox.toml").write_text(text)
        found.update(load_settings(tmp_path, environ={}).settings.projects)
    assert found["web"].worktree
    assert found["web"].base == "main"
    assert found["other"].stdin == "task"


def test_the_defaults_are_those_of_the_settings() -> None:
    """Figures in the text are the defaults of the settings."""
    values = load_settings(Path("/nowhere"), environ={}).settings
    assert f"up to {values.diff_max_bytes // 1024} kB" in PAGE
    assert f"within {values.kill_grace_s:g} s of SIGTERM" in PAGE
    assert "The last 10 of a project" in PAGE


def test_the_script_runs(site: Site, repository: Path) -> None:
    """Copied into a shell, it does what the page says."""
    site.configure(project(repository, "web", "worktree = true"))
    command = shlex.join(threeox())
    with site.workers():
        for script in blocks("sh"):
            ran = subprocess.run(
                [require_tool("bash"), "-euc", f'3ox() {{ {command} "$@"; }}\n{script}'],
                env=site.environ,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            assert ran.stdout.count("task.custom/web") == 5
            assert "└─ " in ran.stdout
            assert "+shipped" in ran.stdout


def test_the_python_snippet_runs(site: Site) -> None:
    """It prints the state of a queued job."""
    site.configure("")
    for snippet in blocks("python"):
        ran = subprocess.run(
            [sys.executable, "-c", snippet],
            env=site.environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == "queued\n"
