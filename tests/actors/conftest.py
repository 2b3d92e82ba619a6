"""Fixtures of the actors' tests: settings of the process, without a store since no actor needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from actors import context
from actors.context import set_settings
from ops.settings.load import ENV_FOREIGN, LoadedSettings, load_settings
from ops.workspace import Workspace
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI

Configure = Callable[..., LoadedSettings]


@pytest.fixture
def configure(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Set the settings of this process: text of 3ox.toml, and overrides by name."""
    monkeypatch.setattr(context._ProcessSettings, "live", None)

    def set_up(toml: str = "", **overrides: object) -> LoadedSettings:
        workspace.settings_file.write_text(toml)
        loaded = load_settings(workspace.home, environ={}, overrides={"kill_grace_s": 0.5, **overrides})
        set_settings(loaded)
        return loaded

    return set_up


@pytest.fixture
def plain(configure: Configure) -> LoadedSettings:
    """The default settings, with a short grace."""
    return configure()


@pytest.fixture
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is configured in the environment, whatever the machine of the tests has there."""
    for name in ENV_FOREIGN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A server that speaks OpenAI's protocol, and the environment that points at it."""
    with FakeOpenAI() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def anthropic(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAnthropic]:
    """A server that speaks Anthropic's protocol, and the environment that points at it."""
    with FakeAnthropic() as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        yield server
