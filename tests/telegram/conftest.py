"""A Bot API server, a model, a worker and a bot that most tests share; some tests use their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ingress.demo.bot_api import BotApi
from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.fake_openai import FakeOpenAI
from tests.support import bridge_environ
from tests.telegram.running import BotProcess, running_bot, telegram_environ
from tests.workers import running_worker, sweep


class Scene(NamedTuple):
    """A Bot API server, a model, and a bot."""

    api: BotApi
    model: FakeOpenAI
    bot: BotProcess


@pytest.fixture(scope="session")
def model() -> Iterator[FakeOpenAI]:
    """A model that repeats the question word by word."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="session")
def scene(valkey: str, model: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A running bot and a worker, shared by all tests."""
    asks = {"OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": model.base_url}
    environ = bridge_environ(tmp_path_factory.mktemp("telegram"), valkey, extra=asks)
    with BotApi() as api:
        environ = telegram_environ(environ, api)
        loaded = load_settings(environ=environ)
        loaded.workspace.create()
        with running_worker(Bridge(loaded), environ, threads=8), running_bot(environ) as bot:
            yield Scene(api, model, bot)
    sweep(environ)


@pytest.fixture
def own(environ: dict[str, str], model: FakeOpenAI) -> Iterator[Scene]:
    """A bot of one test, not started, without a worker."""
    with BotApi() as api:
        mine = {**environ, "OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": model.base_url}
        bot = BotProcess(telegram_environ(mine, api))
        yield Scene(api, model, bot)
        bot.end()
    sweep(environ)
