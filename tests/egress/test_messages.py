"""Notifications and replies, against a real HTTP server."""

from __future__ import annotations

import pytest

from actors.egress import notify, telegram
from actors.egress.retry_delay import RetryLater
from ingress.demo.bot_api import BotApi
from ops.errors import JobFailed, JobRefused, SettingsError
from tests.egress.conftest import JOB_ID, Configured, outcome
from tests.egress.receiver import Receiver

#: Apprise imports it under Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

BOT = 'telegram_token = "123:abcdef"\ntelegram_allow = [5]\ntelegram_api = "{url}"\n'


def test_a_notification_says_what_failed_and_how_to_see_more(
    configured: Configured, receiver: Receiver
) -> None:
    """Title, question, error, and the command that shows all of it; only this URL is notified."""
    loaded = configured(f'[[notify]]\nurls = ["json://127.0.0.1:1", "json://127.0.0.1:{receiver.port}"]\n')
    assert notify.deliver(outcome("failed"), loaded, "1:2").place == "json"
    sent = receiver.taken[0].json
    assert (sent["title"], sent["type"]) == ("ask failed", "failure")
    assert sent["message"] == f"How are you?\n\nNo provider answered.\n\n3ox jobs {JOB_ID}"


def test_a_notification_that_is_not_taken_is_tried_again(configured: Configured, receiver: Receiver) -> None:
    """Apprise raises nothing; the delivery does."""
    receiver.status = 500
    loaded = configured(f'[[notify]]\nname = "ops"\nurls = ["json://127.0.0.1:{receiver.port}"]\n')
    with pytest.raises(JobFailed, match=r"notify:ops:1 \(json\) was not accepted"):
        notify.deliver(outcome(), loaded, "ops:1")


def test_an_address_may_stand_in_the_environment(
    configured: Configured, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that 3ox.toml contains no secret."""
    loaded = configured('[[notify]]\nurls = ["env:PAGER_URL"]\n')
    with pytest.raises(JobRefused, match="PAGER_URL is not set"):
        notify.deliver(outcome(), loaded, "1:1")
    monkeypatch.setenv("PAGER_URL", f"json://127.0.0.1:{receiver.port}")
    notify.deliver(outcome(), loaded, "1:1")
    assert len(receiver.taken) == 1


@pytest.mark.parametrize("which", ["2:1", "ops:1", "1:2", "1:0", "1:x"])
def test_an_address_that_is_gone_is_refused(configured: Configured, which: str) -> None:
    """Settings may have changed since the job was taken."""
    with pytest.raises(JobRefused):
        notify.deliver(outcome(), configured('[[notify]]\nurls = ["json://127.0.0.1"]\n'), which)
    with pytest.raises(JobRefused, match="does not support the URL"):
        notify.deliver(outcome(), configured('[[notify]]\nurls = ["nonsense"]\n'), "1:1")


def test_a_reply_goes_to_the_chat_and_the_message(configured: Configured, receiver: Receiver) -> None:
    """The answer alone, as a reply; the token is part of the path, as the Bot API requires."""
    loaded = configured(BOT.format(url=receiver.url))
    sent = outcome(metadata={"chat_id": "5", "message_id": "77"})
    assert telegram.deliver(sent, loaded, "").place == "chat 5"
    taken = receiver.taken[0]
    assert taken.path == "/bot123:abcdef/sendMessage"
    assert taken.json == {
        "chat_id": 5,
        "text": "Fine, **thanks**.",
        "reply_parameters": {"message_id": 77, "allow_sending_without_reply": True},
    }


def test_a_long_reply_is_one_message(configured: Configured, receiver: Receiver) -> None:
    """Cut, with the command that shows all of it; a session names the chat, too."""
    loaded = configured(BOT.format(url=receiver.url))
    telegram.deliver(outcome(result="x" * 9000, session_id="tg_5"), loaded, "")
    text = receiver.taken[0].json["text"]
    assert len(text) == 4096
    assert text.endswith(f"x …\n\n3ox jobs {JOB_ID}")


def test_the_bot_api_says_when_to_come_back(configured: Configured, receiver: Receiver) -> None:
    """In the body of its answer; a refusal for good is one, without the token in it."""
    loaded = configured(BOT.format(url=receiver.url))
    sent = outcome("failed", metadata={"chat_id": "5"})
    receiver.status, receiver.answer = 429, b'{"ok":false,"parameters":{"retry_after":3}}'
    with pytest.raises(RetryLater) as raised:
        telegram.deliver(sent, loaded, "")
    assert raised.value.delay == 3000
    receiver.status, receiver.answer = 403, b'{"ok":false,"description":"bot was blocked"}'
    with pytest.raises(JobRefused, match="bot was blocked") as refused:
        telegram.deliver(sent, loaded, "")
    assert "abcdef" not in str(refused.value)


@pytest.mark.parametrize("token", ["123:abc def", "123:abcdéf"])
def test_a_token_with_a_slip_in_it_is_not_told(configured: Configured, token: str) -> None:
    """A blank or an accent is refused with the settings; the error has no part of the token."""
    with pytest.raises(SettingsError, match=r"telegram_token in .* has the wrong form") as refused:
        configured(BOT.format(url="http://127.0.0.1:1").replace("123:abcdef", token))
    assert "abcd" not in str(refused.value)


def test_only_allowed_chats_are_answered(configured: Configured, receiver: Receiver) -> None:
    """Metadata are no permission."""
    loaded = configured(BOT.format(url=receiver.url))
    with pytest.raises(JobRefused, match="chat 6 is not allowed"):
        telegram.deliver(outcome(metadata={"chat_id": "6"}), loaded, "")
    with pytest.raises(JobRefused, match="names no Telegram chat"):
        telegram.deliver(outcome(), loaded, "")
    with pytest.raises(JobRefused, match="Set telegram_token"):
        telegram.deliver(outcome(session_id="tg_5"), configured(""), "")
    assert receiver.taken == []


def test_a_result_finds_its_topic_and_its_supergroup(configured: Configured) -> None:
    """In the topic while it exists, else in the chat; under the chat's new id, which is then allowed too."""
    with BotApi("123:abcdef") as api:
        loaded = configured(BOT.format(url=api.url).replace("[5]", "[-4711]"))
        asked = api.updates[api.say(-4711, "hello", thread=7)]["message"]
        sent = outcome(session_id="tg_-4711_7", metadata={"message_id": str(asked["message_id"])})
        telegram.deliver(sent, loaded, "")
        (first,) = api.messages(-4711)
        assert first["message_thread_id"] == 7
        assert first["reply_to_message"]["message_id"] == asked["message_id"]
        api.delete_topic(-4711, 7)
        telegram.deliver(sent, loaded, "")
        assert "message_thread_id" not in api.messages(-4711)[1]
        api.migrate(-4711, -100888)
        assert telegram.deliver(sent, loaded, "").place == "chat -100888"
        telegram.deliver(sent, loaded, "")
        telegram.deliver(outcome(session_id="tg_-100888"), loaded, "")
        assert len(api.messages(-100888)) == 3
        with pytest.raises(JobRefused, match="chat -100889 is not allowed"):
            telegram.deliver(outcome(session_id="tg_-100889"), loaded, "")
