"""docs/how-to/ask.md is accurate: its settings load, its tables are complete, its snippet runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import msgspec
import pytest

from actors.llm.plugin_providers import OWN_PROVIDERS
from actors.llm.results import AskResult
from ingress.cli.main import MODULES
from middleware.context import set_current_job
from ops.settings.ask import AskSettings, BudgetSettings, LocalSettings
from ops.settings.load import load_settings
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_openai import FakeOpenAI, answers
from tests.support import ROOT

PAGE = (ROOT / "docs/how-to/ask.md").read_text()


def fields(kind: type[msgspec.Struct]) -> set[str]:
    """Return the names of a struct's fields."""
    return {field.name for field in msgspec.structs.fields(kind)}


def test_its_settings_are_valid_and_complete(tmp_path: Path) -> None:
    """All snippets together are one valid 3ox.toml with every table and every budget."""
    (tmp_path / "3ox.toml").write_text("\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)))
    ask = load_settings(tmp_path, environ={}).settings.ask
    assert ask.providers == ["openai", "anthropic", "command"]
    assert all(getattr(ask.budget, name) is not None for name in fields(BudgetSettings))
    assert ask.prices["my-model"].output_usd == 1.5
    for name in fields(AskSettings) - {"providers", "answer_max_tokens"}:
        assert f"[ask.{name}" in PAGE or f"[ask] {name}" in PAGE, name
    defaults = LocalSettings()
    assert msgspec.structs.replace(ask.local) == defaults


def test_its_tables_are_complete() -> None:
    """Every provider and every field of the result is described; every command exists."""
    for name in (*OWN_PROVIDERS, *fields(AskResult)):
        assert f"`{name}`" in PAGE, name
    assert set(re.findall(r"3ox ([a-z]+)", PAGE)) - {"toml"} <= MODULES.keys()


@pytest.mark.usefixtures("no_provider")
def test_its_snippet_runs(configure: Configure, openai: FakeOpenAI) -> None:
    """In a job, it prints the decision."""
    configure()
    openai.plan(answers('{"action": "drop", "reason": "empty"}'))
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    run = JobRun("ask", {"prompt": "-"})
    set_current_job(run.context)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(snippet, "docs/how-to/ask.md", "exec", dont_inherit=True), {"__name__": "snippet"})  # noqa: S102
    finally:
        set_current_job(None)
    assert printed.getvalue().startswith("drop openai 1.35e-06")
