"""docs/how-to/history.md is accurate."""

from __future__ import annotations

import re
from pathlib import Path

from ops.settings.table import Settings

PAGE = (Path(__file__).parents[2] / "docs/how-to/history.md").read_text()


def test_the_settings_are_those_of_the_table() -> None:
    """The table lists exactly the settings of the history, with their defaults."""
    rows = dict(re.findall(r"^\| `(history_\w+)` \| (\d+) \|", PAGE, re.MULTILINE))
    fields = [name for name in Settings.__struct_fields__ if name.startswith("history_")]
    assert rows == {name: str(getattr(Settings(), name)) for name in fields}
