"""A Bot API, a model, a worker and a door that most tests share; what breaks things gets its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ingress.demo.bot_api import BotApi
from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.fake_openai import FakeOpenAI
from tests.support import bridge_environ
from tests.telegram.running import Door, open_door, telegram_environ
from tests.workers import running_worker, sweep


class Scene(NamedTuple):
    """What plays together: Telegram, the model, the bridge's door."""

    api: BotApi
    model: FakeOpenAI
    door: Door


@pytest.fixture(scope="session")
def model() -> Iterator[FakeOpenAI]:
    """A model that says what it was asked, word by word."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="session")
def scene(valkey: str, model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A door and a worker that no test ends."""
    asks = {"OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": model.base_url}
    environ = bridge_environ(tmp_path_factory.mktemp("telegram"), valkey, extra=asks)
    with BotApi() as api:
        environ = telegram_environ(environ, api)
        loaded = load_settings(environ=environ)
        loaded.workspace.create()
        with running_worker(Bridge(loaded), environ, threads=8), open_door(environ) as door:
            yield Scene(api, model, door)
    sweep(environ)


@pytest.fixture
def own(environ: dict[str, str], model: FakeOpenAI) -> Iterator[Scene]:
    """A door of the test's own, not started, and no worker yet."""
    with BotApi() as api:
        mine = {**environ, "OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": model.base_url}
        door = Door(telegram_environ(mine, api))
        yield Scene(api, model, door)
        door.end()
    sweep(environ)
