"""docs/how-to/schedules.md is accurate."""

from __future__ import annotations

import re
import tomllib

import msgspec

from ingress.core.schedules import SKIP_LATEST_S, make_schedules
from ops.settings.load import ScheduleSettings, Settings
from tests.support import ROOT

PAGE = (ROOT / "docs/how-to/schedules.md").read_text()


def test_the_example_is_valid() -> None:
    """Copied into 3ox.toml, it is accepted."""
    snippet = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert snippet is not None
    rows = msgspec.convert(tomllib.loads(snippet[1])["schedule"], list[ScheduleSettings])
    assert [schedule.id for schedule in make_schedules(rows)] == ["nightly", "report"]


def test_every_key_of_a_schedule_is_described() -> None:
    """The table lists exactly the keys of a schedule."""
    table = PAGE.split("| --- | --- |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(ScheduleSettings.__struct_fields__)


def test_figures_are_those_of_the_settings() -> None:
    """Figures in the text are the defaults of the settings."""
    defaults = Settings()
    assert f"lasts {defaults.clock_lease_s:g} s" in PAGE
    assert f"the last {defaults.clock_catch_up_max:,}" in PAGE
    assert f"every {defaults.canary_interval_s / 60:g} min" in PAGE
    assert f"{SKIP_LATEST_S:g} s for `skip`" in PAGE
