"""Addresses of replies (supergroups, topics); messages that are edited, quoted, spoken or posted."""

from __future__ import annotations

from ingress.demo.bot_api import BotApi
from tests.fake_openai import answers
from tests.support import eventually
from tests.telegram.conftest import Scene
from tests.telegram.running import CHANNEL, CHAT, GROUP, OLD_GROUP
from tests.telegram.test_bot import await_answer, await_reply, job_of, reply_to

SUPERGROUP = -100888


def asked(scene: Scene, update_id: int) -> str:
    """Return the question of an update's job."""
    text: str = scene.bot.bridge.reader.job(job_of(scene.api, update_id)).payload["text"]
    return text


def test_a_topic_is_a_conversation_of_its_own(scene: Scene) -> None:
    """All parts of a long answer stay in it, its session is its own; a deleted topic loses nothing."""
    api = scene.api
    scene.model.plan(answers("a" * 5000))
    update_id = api.say(GROUP, "long", user_id=5, thread=77)
    api.wait(lambda: "".join(texts_in(api, GROUP, 77)) == "a" * 5000)
    assert len(texts_in(api, GROUP, 77)) == 2
    job = scene.bot.bridge.reader.job(job_of(api, update_id))
    assert (job.session_id, job.metadata["telegram_thread"]) == (f"tg_{GROUP}_77", "77")
    api.delete_topic(GROUP, 77)
    plain = api.say(GROUP, "/help", user_id=5)
    await_reply(api, GROUP, plain, "Send a message")
    with_gone_topic = api.add(
        {"message": {**api.updates[update_id]["message"], "text": "into the void", "message_id": 999_001}}
    )
    api.wait(lambda: "into the void" in api.texts(GROUP))
    assert scene.bot.log("telegram.topic_gone")[-1]["update_id"] == with_gone_topic


def texts_in(api: BotApi, chat_id: int, thread: int) -> list[str]:
    """Return the texts of the bot's messages in a topic."""
    return [
        message["text"] for message in api.messages(chat_id) if message.get("message_thread_id") == thread
    ]


def test_a_group_becomes_a_supergroup(scene: Scene) -> None:
    """The reply in progress goes to the new chat, which is allowed from then on, also after a restart."""
    api = scene.api
    api.know(OLD_GROUP)
    first = api.say(OLD_GROUP, "/help", user_id=5)
    await_reply(api, OLD_GROUP, first, "Send a message")
    # Telegram's error is the first that the bot hears of it.
    api.migrate(OLD_GROUP, SUPERGROUP, announce=False)
    late = api.say(OLD_GROUP, "are you there?", user_id=5)
    api.wait(lambda: "are you there?" in api.texts(SUPERGROUP))
    assert not reply_to(api, OLD_GROUP, late)
    line = scene.bot.log("telegram.chat_migrated")[-1]
    assert (line["chat_id"], line["new_chat_id"]) == (OLD_GROUP, SUPERGROUP)
    update_id = api.say(SUPERGROUP, "and here?", user_id=5)
    await_answer(api, SUPERGROUP, update_id, "and here?")
    scene.bot.stop()
    scene.bot.start()
    again = api.say(SUPERGROUP, "still allowed?", user_id=5)
    await_answer(api, SUPERGROUP, again, "still allowed?")
    # The service messages come first.
    api.migrate(SUPERGROUP, SUPERGROUP - 1)
    last = api.say(SUPERGROUP - 1, "moved twice", user_id=5)
    await_answer(api, SUPERGROUP - 1, last, "moved twice")
    api.migrate(-5, -6)
    api.say(-6, "not allowed", user_id=5)
    eventually(lambda: [row for row in scene.bot.log("telegram.not_allowed") if row["chat_id"] == -6])
    assert api.messages(-6) == []


def test_edited_and_quoted_messages_and_posts(scene: Scene) -> None:
    """Each is answered once; what a message quotes is part of the question."""
    api = scene.api
    update_id = api.say(CHAT, "waht?")
    await_answer(api, CHAT, update_id, "waht?")
    edited = api.change(update_id, "what?")
    api.wait(lambda: [message["text"] for message in reply_to(api, CHAT, update_id)] == ["waht?", "what?"])
    answered = reply_to(api, CHAT, update_id)[0]
    quoting = api.say(CHAT, "why?", reply_to_message=answered, quote={"text": "wa\nht", "position": 0})
    await_answer(api, CHAT, quoting, "> wa\n> ht\n\nwhy?")
    replying = api.say(CHAT, "how?", reply_to_message=answered)
    await_answer(api, CHAT, replying, "> waht?\n\nhow?")
    assert asked(scene, replying) == "> waht?\n\nhow?"
    post = api.post(CHANNEL, "a post")
    api.wait(lambda: "a post" in api.texts(CHANNEL))
    changed = api.change(post, "a better post")
    api.wait(lambda: "a better post" in api.texts(CHANNEL))
    assert len({update_id, edited, post, changed}) == 4
    for repeated in (edited, changed):
        api.repeat(repeated)
    last = api.say(CHAT, "/help")
    await_reply(api, CHAT, last, "Send a message")
    assert api.texts(CHANNEL) == ["a post", "a better post"]


def test_voice_messages_and_albums_are_files(scene: Scene) -> None:
    """Each file is answered; an edited caption is not silently dropped."""
    api = scene.api
    voice = api.speak(CHAT, b"OggS")
    await_reply(api, CHAT, voice, f"voice-{voice}.ogg")
    first = api.attach(CHAT, "one.txt", b"1 of the album", caption="both")
    second = api.attach(CHAT, "two.txt", b"2 of the album")
    await_reply(api, CHAT, first, "one.txt")
    await_reply(api, CHAT, second, "two.txt")
    api.change(first, "")
    api.wait(lambda: any("was taken when it was sent" in text for text in api.texts(CHAT)))
