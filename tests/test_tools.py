"""A program that a test needs is found, or the reader is told how to install it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.errors import StartFailed
from tests.tools import find_tool, require_tool


def test_a_program_that_is_there_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the PATH has is taken as it is."""
    own = tmp_path / "tmux"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert require_tool("tmux") == str(own)


def test_without_root_the_remedy_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the program and the command that installs its package; nothing is skipped."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find_tool("tmux") is None
    with pytest.raises(StartFailed) as caught:
        require_tool("tmux")
    assert "'tmux' is missing" in str(caught.value)
    assert "apt-get install -y tmux" in caught.value.remedy
    assert "\n" not in str(caught.value)
