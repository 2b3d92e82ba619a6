"""The guides for contributors, followed to the letter in a copy of the source tree, produce working code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.deploy.guide import GUIDES, copy_tree, follow, new_files
from tests.support import ROOT, clean_environ
from tests.workers import running_worker, sweep


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree in which every guide has been followed."""
    made = tmp_path_factory.mktemp("tree")
    copy_tree(made)
    for page in GUIDES:
        follow(page, made)
    return made


def test_what_the_guides_build_works(tree: Path) -> None:
    """The tests of the guides pass, and so do the tests for every job type and setting."""
    built = sorted(file for file in new_files() if file.startswith("tests/"))
    ours = [
        "tests/rest/test_contract.py::test_every_job_type_can_be_asked_for",
        "tests/ops/test_settings.py::test_every_setting_is_explained",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *built, *ours],
        cwd=tree,
        env={**clean_environ(), "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "passed" in ran.stdout


def test_what_the_guides_build_is_formatted(tree: Path) -> None:
    """New files pass ruff unchanged."""
    new = sorted(new_files())
    assert len(new) == 6
    bin_dir = Path(sys.executable).parent
    for command in (
        [str(bin_dir / "ruff"), "check", "--no-cache", *new],
        [str(bin_dir / "ruff"), "format", "--no-cache", "--check", *new],
    ):
        ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stdout


def test_a_tree_with_them_can_be_tested(tree: Path, tmp_path: Path) -> None:
    """Following the guides again in a formatted tree changes nothing."""
    copied = tmp_path / "tree"
    shutil.copytree(tree, copied)
    ruff = str(Path(sys.executable).parent / "ruff")
    for command in ([ruff, "check", "--fix", "--exit-zero", "."], [ruff, "format", "."]):
        subprocess.run([*command, "--no-cache", "--quiet"], cwd=copied, timeout=60, check=True)
    before = {file: file.read_text() for file in copied.rglob("*.py")}
    for page in GUIDES:
        follow(page, copied)
    assert {file: file.read_text() for file in copied.rglob("*.py")} == before


def test_the_program_runs(environ: dict[str, str]) -> None:
    """The project of the tutorial counts the words of a file."""
    page = (ROOT / "docs" / GUIDES[0]).read_text()
    settings = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert settings is not None
    home = Path(environ["BRIDGE_HOME"])
    (home / "3ox.toml").write_text(settings[1])
    shown = re.search(r"```console\n\$ (echo .*?)\n\$ 3ox (run .*?)\n(\w+)\n```", page)
    assert shown is not None
    loaded = load_settings(environ=environ)
    subprocess.run(["sh", "-c", shown[1].replace("~/cmd.bridge", str(home))], check=True)
    with running_worker(Bridge(loaded), environ):
        ran = subprocess.run(
            [sys.executable, "-m", "ingress.cli.start", *shown[2].split()],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == shown[3]
    sweep(environ)
