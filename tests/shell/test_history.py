"""The history file: private, limited, readable whatever it contains."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ingress.shell import history
from ingress.shell.history import LineHistory


def test_lines_are_kept_in_order(tmp_path: Path) -> None:
    """Also with line ends and unusual letters; a new shell has them, latest first."""
    path = tmp_path / "history"
    lines = ["first", "two\nlines", "ünïcode \u2028 \ud800 end"]
    kept = LineHistory(path)
    for line in lines:
        kept.append_string(line)
    assert LineHistory(path).lines() == ["first", "two\nlines", "ünïcode \u2028 ? end"]
    assert next(iter(LineHistory(path).load_history_strings())).startswith("ünïcode")


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """A line may hold a secret."""
    path = tmp_path / "history"
    LineHistory(path).append_string("sh login --password x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_begins_with_a_space_is_not_kept(tmp_path: Path) -> None:
    """Nor is an empty line."""
    kept = LineHistory(tmp_path / "history")
    for line in (" secret", "", "  "):
        kept.append_string(line)
    assert kept.lines() == []


def test_damage_costs_one_line(tmp_path: Path) -> None:
    """A damaged or foreign line is skipped."""
    path = tmp_path / "history"
    path.write_bytes(b'"one"\n"torn\n\xff\xfe\n17\n"two"\n')
    assert LineHistory(path).lines() == ["one", "two"]


def test_the_oldest_lines_are_dropped(tmp_path: Path) -> None:
    """At twice the limit; below it the file is unchanged, and no other file remains."""
    path = tmp_path / "history"
    rows = [f'"{n}"\n' for n in range(2 * history.KEPT_MAX)]
    path.write_text("".join(rows))
    LineHistory(path).tidy()
    assert len(LineHistory(path).lines()) == 2 * history.KEPT_MAX
    LineHistory(path).append_string("last")
    LineHistory(path).tidy()
    assert LineHistory(path).lines()[-1] == "last"
    assert len(LineHistory(path).lines()) == history.KEPT_MAX
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["history"]


def test_a_full_disk_ends_no_shell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line that cannot be recorded and a file that cannot be shortened are only logged."""
    kept = LineHistory(tmp_path)
    kept.append_string("a line")
    LineHistory(tmp_path / "nowhere" / "history").tidy()
    assert next(iter(kept.get_strings())) == "a line"
    assert "shell.line_not_kept" in caplog.text
    assert "shell.history_not_tidied" in caplog.text
