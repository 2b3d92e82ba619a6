"""docs/how-to/telegram.md is accurate: its settings load, its commands exist, its snippet runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec

from ingress.telegram.commands import COMMANDS, HELP
from ops.settings.load import Settings, load_settings
from tests.support import ROOT, clean_environ

PAGE = (ROOT / "docs/how-to/telegram.md").read_text()


def test_the_settings_load(tmp_path: Path) -> None:
    """The example is a valid 3ox.toml."""
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "3ox.toml").write_text(toml)
    settings = load_settings(tmp_path, environ={}).settings
    assert settings.telegram_allow == [42, -100777]
    assert settings.policy[0].effect == "allow"


def test_every_setting_is_described() -> None:
    """The table lists exactly the settings of the bot."""
    rows = set(re.findall(r"^\| `(telegram_\w+)` \|", PAGE, re.MULTILINE))
    known = {field.name for field in msgspec.structs.fields(Settings)}
    assert rows == {name for name in known if name.startswith("telegram_")}


def test_every_command_is_described() -> None:
    """The page and /help name every command."""
    commands = {f"/{name}" for name in [*COMMANDS, "run"]} - {"/start"}
    for text in (PAGE, HELP):
        assert commands <= set(re.findall(r"/[a-z]+", text))


def test_the_snippet_runs(tmp_path: Path) -> None:
    """Copied into a file, it shows a waiting update."""
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-c", snippet],
        env=clean_environ({"BRIDGE_HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "1 []"
