"""docs/how-to/drop-folder.md: its commands run, its table has every setting, its example is valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

from ingress.cli.main import MODULES
from ops.ignored_names import BUILT_IN
from ops.settings.load import load_settings
from ops.settings.station import StationSettings
from tests.station.running import RunningStation
from tests.support import ROOT, run_3ox

PAGE = (ROOT / "docs/how-to/drop-folder.md").read_text()


def test_its_commands_run(station: RunningStation, tmp_path: Path) -> None:
    """They run in order, with the ID of the job that the first one made."""
    (tmp_path / "minutes.md").write_text("# Minutes\n")
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    lines = [line.removeprefix("$ 3ox ") for block in blocks for line in block.splitlines()]
    assert len(lines) >= 3
    for line in lines:
        job_id = station.ended("minutes.md").job_id if "JOB_ID" in line else ""
        arguments = shlex.split(line.replace("JOB_ID", job_id))
        done = run_3ox(*arguments, environ=station.environ, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (station.inbox / "undone" / job_id / "minutes.md").read_text() == "# Minutes\n"


def test_every_command_that_is_named_exists() -> None:
    """Commands named in the text exist."""
    assert set(re.findall(r"`3ox ([a-z]+)", PAGE)) <= MODULES.keys()


def test_the_table_lists_every_setting_with_its_default() -> None:
    """The table lists exactly the settings, in order."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    fields = [field.name for field in msgspec.structs.fields(StationSettings)]
    assert [name for name, _ in rows] == fields
    for name, shown in rows:
        value = getattr(StationSettings(), name)
        wanted = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        found = re.findall(r"`([^`]*)`", shown)
        assert [item.lower() for item in found] == [item.lower() for item in wanted]


def test_it_lists_every_built_in_pattern() -> None:
    """By group, in order."""
    for group, patterns in BUILT_IN.items():
        (row,) = re.findall(rf"^\| {re.escape(group)} \| (.*) \|$", PAGE, re.MULTILINE)
        assert re.findall(r"`([^`]*)`", row) == [pattern.replace("\r", "\\r") for pattern in patterns]


def test_its_example_is_valid(tmp_path: Path) -> None:
    """It is a valid 3ox.toml."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "3ox.toml").write_text(example)
    rules = load_settings(tmp_path, environ={}).settings.station.rules
    assert [rule.action for rule in rules] == ["ARCHIVE", "REFERENCE", "GROUP"]
