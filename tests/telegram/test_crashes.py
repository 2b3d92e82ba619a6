"""Crashes of the bot, outages of the store and Telegram, a second poller: every update is answered once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from ingress.demo.bot_api import BotApi, conflict
from ingress.telegram.update_handler import job_id_for
from tests.dispatch.test_faults import mortal
from tests.fake_openai import FakeOpenAI
from tests.support import RunningValkey, eventually, frozen
from tests.telegram.conftest import Scene
from tests.telegram.running import CHAT, BotProcess, telegram_environ
from tests.workers import running_worker

__all__ = ["mortal"]

UPDATES, KILLS = 100, 4


def sends(api: BotApi) -> int:
    """Return how many messages have been sent."""
    return sum(call.method == "sendMessage" for call in list(api.calls))


def test_a_hundred_updates_under_kill_nine(own: Scene) -> None:
    """The bot is killed four times: each update has one job and one answer, in a message of its own."""
    api, bot = own.api, own.bot
    with running_worker(bot.bridge, bot.environ, threads=8):
        bot.start()
        for number in range(UPDATES):
            api.say(CHAT, f"question {number} of many")
        for kill in range(1, KILLS + 1):
            api.wait(lambda kill=kill: sends(api) >= kill * UPDATES // (KILLS + 2))  # type: ignore[misc]
            bot.kill()
            bot.start()
        wanted = {f"question {number} of many" for number in range(UPDATES)}
        api.wait(lambda: wanted <= set(api.texts(CHAT)), 60.0)
        eventually(lambda: not bot.pending())
    said = Counter(api.texts(CHAT))
    assert {text for text in wanted if said[text] != 1} == set()
    # A kill between Telegram's taking of a "working…" and our noting its id leaves it behind, unedited.
    left = [text for text in said.elements() if text not in wanted]
    assert all(re.fullmatch(r"working… \(\w+\)", text) for text in left), left
    assert len(left) <= KILLS * 8
    page = bot.bridge.reader.page(limit=1000)
    assert len(page.jobs) == UPDATES
    assert page.summary["completed"] == UPDATES
    assert len({job.idempotency_key for job in page.jobs}) == UPDATES
    api.wait(lambda: api.unconfirmed() == 0)


def test_a_reply_stays_pending_across_a_kill(own: Scene) -> None:
    """The job finishes while no bot runs; the next one edits the "working…" message, once."""
    api, bot = own.api, own.bot
    bot.start()
    update_id = api.say(CHAT, "who answers")
    eventually(lambda: [reply.message_ids for reply in bot.pending()] == [(2,)])
    job_id = job_id_for(str(api.bot["id"]), update_id, api.updates[update_id]["message"]["date"] * 1000)
    bot.kill()
    with running_worker(bot.bridge, bot.environ):
        assert bot.bridge.follower.wait(job_id, timeout_s=20).status == "completed"
    assert api.texts(CHAT) == [f"working… ({job_id[-8:]})"]
    bot.start()
    api.wait(lambda: api.texts(CHAT) == ["who answers"])
    eventually(lambda: not bot.pending())
    assert bot.stop() == 0
    bot.start()
    api.say(CHAT, "/help")
    api.wait(lambda: len(api.messages(CHAT)) == 2 and api.texts(CHAT)[1].startswith("Send a message"))


def test_a_repeated_update_is_recognized(own: Scene) -> None:
    """Telegram repeats unconfirmed updates; the next process does not handle them again."""
    api, bot = own.api, own.bot
    bot.start()
    update_id = api.say(CHAT, "/help")
    api.wait(lambda: api.texts(CHAT) != [] and api.texts(CHAT)[0].startswith("Send a message"))
    eventually(lambda: not bot.pending())
    bot.kill()
    api.repeat(update_id)
    bot.start()
    eventually(lambda: [line for line in bot.log("telegram.known_update") if line["update_id"] == update_id])
    api.wait(lambda: api.unconfirmed() == 0)
    assert len(api.messages(CHAT)) == 1


def test_an_update_that_crashes_the_bot_is_quarantined(own: Scene) -> None:
    """After five attempts that never finished it is skipped, and the chat is informed."""
    api, bot = own.api, own.bot
    update_id = api.say(CHAT, "deadly")
    tries = bot.bridge.reader.keys.telegram(str(api.bot["id"]), "tries")
    bot.bridge.store.call("HSET", tries, update_id, 5)
    bot.start()
    api.wait(lambda: api.texts(CHAT) != [] and "was skipped" in api.texts(CHAT)[0])
    assert bot.bridge.reader.page().jobs == []
    assert bot.bridge.store.call("HLEN", tries) == 0


def test_a_project_that_is_added_while_the_bot_runs(own: Scene) -> None:
    """The bot uses it without a restart."""
    api, bot = own.api, own.bot
    bot.start()
    api.say(CHAT, "/run late grind")
    api.wait(lambda: "Unknown project 'late'" in " ".join(api.texts(CHAT)))
    with (bot.workspace.home / "3ox.toml").open("a") as file:
        file.write('[projects.late]\npath = "."\ncommand = ["true"]\n')

    def is_known() -> bool:
        count = len(api.texts(CHAT))
        api.say(CHAT, "/run late grind")
        api.wait(lambda: len(api.texts(CHAT)) > count and api.texts(CHAT)[-1] != "…")
        return "working…" in api.texts(CHAT)[-1]

    eventually(is_known, 10.0)
    assert [job.project for job in bot.bridge.reader.page().jobs] == ["late"]


def test_polling_continues_after_a_conflict(own: Scene) -> None:
    """409 is logged once with the reason; polling continues when the other poller has stopped."""
    api, bot = own.api, own.bot
    api.fail("getUpdates", conflict(), times=3)
    bot.start()
    api.say(CHAT, "/help")
    api.wait(lambda: api.texts(CHAT) != [])
    (line,) = bot.log("telegram.conflict")
    assert "Another program polls for this bot's updates" in line["reason"]
    assert bot.log("telegram.polling_again")


def test_telegram_unreachable_at_the_start_and_later(own: Scene) -> None:
    """The bot starts without Telegram, and works when it is reachable, also after another outage."""
    api, bot = own.api, own.bot
    api.stop()
    bot.start()
    eventually(lambda: bot.log("telegram.away"))
    api.start()
    api.say(CHAT, "/help")
    api.wait(lambda: len(api.texts(CHAT)) == 1)
    api.stop()
    api.say(CHAT, "/nonsense")
    api.start()
    api.wait(lambda: any(text.startswith("Unknown command") for text in api.texts(CHAT)), 30.0)
    first, second = api.texts(CHAT)
    assert first.startswith("Send a message")
    assert second.startswith("Unknown command")


@pytest.fixture
def outage(
    mortal: tuple[RunningValkey, dict[str, str]], model: FakeOpenAI
) -> Iterator[tuple[RunningValkey, Scene]]:
    """A bot that has not been started, whose store can be killed."""
    server, environ = mortal
    with BotApi() as api:
        mine = {**environ, "OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": model.base_url}
        bot = BotProcess(telegram_environ(mine, api))
        yield server, Scene(api, model, bot)
        bot.end()


def test_messages_are_spooled_while_the_store_is_unavailable(outage: tuple[RunningValkey, Scene]) -> None:
    """The reply says so, also after a restart of the bot, and becomes the answer when the store is back."""
    server, (api, _, bot) = outage
    bot.start()
    api.say(CHAT, "/help")
    api.wait(lambda: len(api.texts(CHAT)) == 1 and api.texts(CHAT)[0].startswith("Send a message"))
    server.kill()
    for number in range(20):
        api.say(CHAT, f"spooled question {number}")
    api.say(CHAT, "/status")
    api.wait(lambda: sum("is spooled" in text for text in api.texts(CHAT)) == 20)
    api.wait(lambda: "The store is unavailable. Try again" in api.texts(CHAT)[-1])
    spooled = next(text for text in api.texts(CHAT) if "is spooled" in text)
    part = spooled.rpartition("(")[2].rstrip(")")
    api.say(CHAT, f"/job {part}")
    api.wait(lambda: "\nstatus: spooled\nreason: in the spool since 20" in api.texts(CHAT)[-1])
    assert f"{part}\ntype: telegram" in api.texts(CHAT)[-1]
    assert "waiting for the store" in api.texts(CHAT)[-1]
    api.say(CHAT, "/job 01m80ebxp4nhqap3sz8m")
    api.wait(
        lambda: len(api.texts(CHAT)) == 24 and "The store is unavailable. Try again" in api.texts(CHAT)[-1]
    )
    bot.kill()
    bot.start()
    api.say(CHAT, "one more question")
    api.wait(lambda: sum("is spooled" in text for text in api.texts(CHAT)) == 21)
    assert len(api.texts(CHAT)) == 25
    server.start()
    with running_worker(bot.bridge, bot.environ, threads=4):
        wanted = {f"spooled question {number}" for number in range(20)} | {"one more question"}
        api.wait(lambda: wanted <= set(api.texts(CHAT)), 30.0)
        eventually(lambda: not bot.pending())
    assert len(api.texts(CHAT)) == 25
    assert len(bot.bridge.reader.page(limit=100).jobs) == 21
    assert not list((bot.workspace.state_dir / "telegram").rglob("*.json"))


def test_a_paused_store_delays_nobody(outage: tuple[RunningValkey, Scene]) -> None:
    """The store accepts connections and does not answer: 30 messages are spooled, each is answered once."""
    server, (api, _, bot) = outage
    wanted = {f"patient question {number}" for number in range(30)}
    with running_worker(bot.bridge, bot.environ, threads=4):
        bot.start()
        api.say(CHAT, "/help")
        api.wait(lambda: len(api.texts(CHAT)) == 1 and api.texts(CHAT)[0].startswith("Send a message"))
        with frozen(server.pid):
            for text in sorted(wanted):
                api.say(CHAT, text)
            # Its time-out is a second here; waited for once or twice, not by each message.
            api.wait(lambda: sum("is spooled" in text for text in api.texts(CHAT)) == 30, 15.0)
        api.wait(lambda: wanted <= set(api.texts(CHAT)), 30.0)
        eventually(lambda: not bot.pending())
    assert len(api.texts(CHAT)) == 31
    assert len(bot.bridge.reader.page(limit=100).jobs) == 30
