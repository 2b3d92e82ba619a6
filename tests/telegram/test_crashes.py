"""The door is killed, the store goes away, somebody else polls: nothing is lost and nothing said twice."""

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
from tests.telegram.running import CHAT, Door, telegram_environ
from tests.workers import running_worker

__all__ = ["mortal"]

UPDATES, KILLS = 200, 5


def sends(api: BotApi) -> int:
    """Count the messages that were sent so far."""
    return sum(call.method == "sendMessage" for call in list(api.calls))


def test_two_hundred_updates_under_kill_nine(own: Scene) -> None:
    """The door is killed five times meanwhile: one job and one answer for each update, in its own message."""
    api, door = own.api, own.door
    with running_worker(door.bridge, door.environ, threads=8):
        door.start()
        for number in range(UPDATES):
            api.say(CHAT, f"question {number} of many")
        for kill in range(1, KILLS + 1):
            api.wait(lambda kill=kill: sends(api) >= kill * UPDATES // (KILLS + 2))  # type: ignore[misc]
            door.kill()
            door.start()
        wanted = {f"question {number} of many" for number in range(UPDATES)}
        api.wait(lambda: wanted <= set(api.texts(CHAT)), 60.0)
        eventually(lambda: not door.pending())
    said = Counter(api.texts(CHAT))
    assert {text for text in wanted if said[text] != 1} == set()
    # A kill between Telegram's taking of a "working…" and our noting its id leaves it behind, unedited.
    left = [text for text in said.elements() if text not in wanted]
    assert all(re.fullmatch(r"working… \(\w+\)", text) for text in left), left
    assert len(left) <= KILLS * 8
    page = door.bridge.reader.page(limit=1000)
    assert len(page.jobs) == UPDATES
    assert page.summary["completed"] == UPDATES
    assert len({job.idempotency_key for job in page.jobs}) == UPDATES
    api.wait(lambda: api.unconfirmed() == 0)


def test_a_reply_is_owed_across_a_kill(own: Scene) -> None:
    """The job ends while no door is open: the next one edits the "working…" message, once."""
    api, door = own.api, own.door
    door.start()
    update_id = api.say(CHAT, "who answers")
    eventually(lambda: [reply.message_ids for reply in door.pending()] == [(2,)])
    job_id = job_id_for(str(api.bot["id"]), update_id, api.updates[update_id]["message"]["date"] * 1000)
    door.kill()
    with running_worker(door.bridge, door.environ):
        assert door.bridge.follower.wait(job_id, timeout_s=20).status == "completed"
    assert api.texts(CHAT) == [f"working… ({job_id[-8:]})"]
    door.start()
    api.wait(lambda: api.texts(CHAT) == ["who answers"])
    eventually(lambda: not door.pending())
    assert door.stop() == 0
    door.start()
    api.say(CHAT, "/help")
    api.wait(lambda: len(api.messages(CHAT)) == 2 and api.texts(CHAT)[1].startswith("Send a message"))


def test_an_update_that_comes_again_is_known(own: Scene) -> None:
    """Telegram repeats what was not confirmed: a killed door's successor does not handle it again."""
    api, door = own.api, own.door
    door.start()
    update_id = api.say(CHAT, "/help")
    api.wait(lambda: api.texts(CHAT) != [] and api.texts(CHAT)[0].startswith("Send a message"))
    eventually(lambda: not door.pending())
    door.kill()
    api.repeat(update_id)
    door.start()
    eventually(lambda: [line for line in door.log("telegram.known_update") if line["update_id"] == update_id])
    api.wait(lambda: api.unconfirmed() == 0)
    assert len(api.messages(CHAT)) == 1


def test_an_update_that_kills_its_door_is_set_aside(own: Scene) -> None:
    """Begun five times and never finished: it is skipped, and its chat is told."""
    api, door = own.api, own.door
    update_id = api.say(CHAT, "deadly")
    tries = door.bridge.reader.keys.telegram(str(api.bot["id"]), "tries")
    door.bridge.store.call("HSET", tries, update_id, 5)
    door.start()
    api.wait(lambda: api.texts(CHAT) != [] and "was skipped" in api.texts(CHAT)[0])
    assert door.bridge.reader.page().jobs == []
    assert door.bridge.store.call("HLEN", tries) == 0


def test_a_project_that_is_written_while_the_door_is_open(own: Scene) -> None:
    """The bot knows it without a restart."""
    api, door = own.api, own.door
    door.start()
    api.say(CHAT, "/run late grind")
    api.wait(lambda: "Unknown project 'late'" in " ".join(api.texts(CHAT)))
    with (door.workspace.home / "3ox.toml").open("a") as file:
        file.write('[projects.late]\npath = "."\ncommand = ["true"]\n')

    def is_known() -> bool:
        count = len(api.texts(CHAT))
        api.say(CHAT, "/run late grind")
        api.wait(lambda: len(api.texts(CHAT)) > count and api.texts(CHAT)[-1] != "…")
        return "working…" in api.texts(CHAT)[-1]

    eventually(is_known, 10.0)
    assert [job.project for job in door.bridge.reader.page().jobs] == ["late"]


def test_another_poller_is_waited_out(own: Scene) -> None:
    """409 is explained in one line; when the other one has gone, the door goes on."""
    api, door = own.api, own.door
    api.fail("getUpdates", conflict(), times=3)
    door.start()
    api.say(CHAT, "/help")
    api.wait(lambda: api.texts(CHAT) != [])
    (line,) = door.log("telegram.conflict")
    assert "Another program polls for this bot's updates" in line["reason"]
    assert door.log("telegram.polling_again")


def test_telegram_away_at_the_start_and_later(own: Scene) -> None:
    """The door opens without Telegram, and goes on when it is there, and again after an outage."""
    api, door = own.api, own.door
    api.stop()
    door.start()
    eventually(lambda: door.log("telegram.away"))
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
    """A door, not started, whose store can be killed."""
    server, environ = mortal
    with BotApi() as api:
        mine = {**environ, "OPENAI_API_KEY": "sk-test-0123456789", "OPENAI_BASE_URL": model.base_url}
        door = Door(telegram_environ(mine, api))
        yield server, Scene(api, model, door)
        door.end()


def test_while_the_store_is_away_messages_are_spooled(outage: tuple[RunningValkey, Scene]) -> None:
    """The answer says so, also across a kill of the door; when the store is back it becomes the real one."""
    server, (api, _, door) = outage
    door.start()
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
    door.kill()
    door.start()
    api.say(CHAT, "one more question")
    api.wait(lambda: sum("is spooled" in text for text in api.texts(CHAT)) == 21)
    assert len(api.texts(CHAT)) == 25
    server.start()
    with running_worker(door.bridge, door.environ, threads=4):
        wanted = {f"spooled question {number}" for number in range(20)} | {"one more question"}
        api.wait(lambda: wanted <= set(api.texts(CHAT)), 30.0)
        eventually(lambda: not door.pending())
    assert len(api.texts(CHAT)) == 25
    assert len(door.bridge.reader.page(limit=100).jobs) == 21
    assert not list((door.workspace.state_dir / "telegram").rglob("*.json"))


def test_a_paused_store_delays_nobody(outage: tuple[RunningValkey, Scene]) -> None:
    """A store that takes connections and does not answer: 30 messages are spooled, each is answered once."""
    server, (api, _, door) = outage
    wanted = {f"patient question {number}" for number in range(30)}
    with running_worker(door.bridge, door.environ, threads=4):
        door.start()
        api.say(CHAT, "/help")
        api.wait(lambda: len(api.texts(CHAT)) == 1 and api.texts(CHAT)[0].startswith("Send a message"))
        with frozen(server.pid):
            for text in sorted(wanted):
                api.say(CHAT, text)
            # Its time-out is a second here; waited for once or twice, not by each message.
            api.wait(lambda: sum("is spooled" in text for text in api.texts(CHAT)) == 30, 15.0)
        api.wait(lambda: wanted <= set(api.texts(CHAT)), 30.0)
        eventually(lambda: not door.pending())
    assert len(api.texts(CHAT)) == 31
    assert len(door.bridge.reader.page(limit=100).jobs) == 30
