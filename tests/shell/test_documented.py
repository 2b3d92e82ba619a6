"""docs/reference/shell.md is accurate: its lines run, its table has every command."""

from __future__ import annotations

import re

from ingress.shell.parser import COMMANDS
from ops.settings.load import Settings
from tests.cli.support import Cli
from tests.support import ROOT

PAGE = (ROOT / "docs/reference/shell.md").read_text()


def test_the_lines_of_the_page_run(bridge: Cli) -> None:
    """Each line does what the page says; none is refused."""
    found = re.search(r"```shell-lines\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    done = bridge("shell", stdin=found.group(1))
    assert done.code == 0, done.err
    assert done.out.startswith("a  b\nsession shell_")
    assert "runs in the background" in done.out
    assert "session [NAME|new|clear]" in done.out
    assert "exit status 3" in done.err


def test_the_table_has_every_command() -> None:
    """The table lists exactly the commands of the shell."""
    rows = re.findall(r"^\| (`.*?) \|", PAGE.split("## Keys")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z]+)", row)}
    assert named == set(COMMANDS)


def test_the_figures_are_the_settings() -> None:
    """Figures in the text are the defaults of the settings."""
    settings = Settings()
    for figure, name in (
        (f"{settings.session_messages_max}", "session_messages_max"),
        (f"{settings.session_ttl_s // 86_400} days", "session_ttl_s"),
        (f"{settings.session_context_tokens:,} tokens", "session_context_tokens"),
    ):
        assert re.search(rf"{re.escape(figure)}[^(]*\(`{name}`\)", PAGE), name
