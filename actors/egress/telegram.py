"""Delivers results to a Telegram chat, for jobs that the bot does not answer itself."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec

from actors.egress.http_post import post, require_success, retry_after_s
from actors.egress.notify import text_of
from actors.egress.outcome import Delivered, Outcome
from middleware.job.keys import Keys
from middleware.job.records import JobRecord
from middleware.job.texts import result_text
from middleware.telegram_chats import TOPIC_GONE, ChatMigrations, bot_id_of, current_chat, is_among
from ops.errors import JobRefused
from ops.http.client import HttpResponse
from ops.logs import get_logger
from ops.settings.load import LoadedSettings
from ops.store.client import Store

#: Longest text of one message that the Bot API allows.
MESSAGE_MAX = 4096
_TIMEOUT_S = 20.0
_SESSION = "tg_"
_CLIENT_ERROR = 400
#: Attempts to find the present address of a chat: it has migrated, its topic is gone.
_ADDRESSES_MAX = 4

log = get_logger(__name__)


class Address(NamedTuple):
    """Where a result is sent.

    Attributes:
        chat_id: The chat, with its present id.
        thread_id: Topic; None outside topics.
        message_id: The message that it answers; None if there is none.
    """

    chat_id: int
    thread_id: int | None = None
    message_id: int | None = None


def deliver(outcome: Outcome, loaded: LoadedSettings, _which: str) -> Delivered:
    """Send the result as a reply to the message that requested it.

    A chat that has become a supergroup gets it under its new id. The result for a topic that has been deleted
    or closed goes to the chat.

    Raises:
        JobFailed: The Bot API did not accept it now; worth a retry.
        JobRefused: The token is missing, or the chat is unknown or no longer allowed.
    """
    token = loaded.settings.telegram_token
    if not token:
        raise JobRefused("No Telegram bot is configured.", remedy="Set telegram_token.")
    address = address_of(outcome.record)
    with contextlib.closing(Store.open(loaded)) as store:
        keys = Keys(loaded.settings.key_prefix)
        return _deliver(outcome, loaded, address, ChatMigrations(store, keys, bot_id_of(token)))


def _deliver(
    outcome: Outcome, loaded: LoadedSettings, address: Address, migrations: ChatMigrations
) -> Delivered:
    known = migrations.read()
    if not is_among(address.chat_id, loaded.settings.telegram_allow, known):
        raise JobRefused(f"The chat {address.chat_id} is not allowed.", remedy="Add it to telegram_allow.")
    if current_chat(address.chat_id, known) != address.chat_id:
        address = Address(current_chat(address.chat_id, known))
    text = message_of(outcome)
    for _ in range(_ADDRESSES_MAX):
        response = _send(loaded, address, text)
        problem = _problem_of(response)
        if problem.parameters.migrate_to_chat_id is not None:
            migrations.record(address.chat_id, problem.parameters.migrate_to_chat_id)
            address = Address(problem.parameters.migrate_to_chat_id)
        elif address.thread_id is not None and _is_topic_gone(problem.description):
            log.warning("telegram.topic_gone", chat_id=address.chat_id, reason=problem.description)
            address = Address(address.chat_id)
        else:
            break
    require_success(_with_retry_after(response, problem), "Telegram")
    return Delivered(sink="telegram", place=f"chat {address.chat_id}")


def address_of(record: JobRecord) -> Address:
    """Return the chat that a job came from, with topic and message.

    Raises:
        JobRefused: Neither its metadata nor its session names a chat.
    """
    session = record.session_id
    named = session.removeprefix(_SESSION) if session is not None and session.startswith(_SESSION) else ""
    named_chat, _, named_thread = named.partition("_")
    chat = record.metadata.get("chat_id", named_chat)
    thread = record.metadata.get("telegram_thread", named_thread)
    message = record.metadata.get("message_id", "")
    try:
        return Address(
            int(chat),
            int(thread) if thread.isdecimal() else None,
            int(message) if message.isdecimal() else None,
        )
    except ValueError as error:
        raise JobRefused(
            f"The job names no Telegram chat (chat_id: {chat!r}).",
            remedy="Set the metadata chat_id, or a session tg_CHAT.",
        ) from error


def message_of(outcome: Outcome) -> str:
    """Return the reply: the answer if there is one, else the final state; cut to one message.

    Several messages cannot be sent atomically: a retry after a failure in between would repeat the first.
    """
    record = outcome.record
    result = result_text(record).strip() if record.status == "completed" else ""
    text = result if result else f"{outcome.title}\n\n{text_of(outcome)}"
    more = f" …\n\n3ox jobs {record.job_id}"
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - len(more)] + more


def _send(loaded: LoadedSettings, address: Address, text: str) -> HttpResponse:
    url = f"{loaded.settings.telegram_api.rstrip('/')}/bot{loaded.settings.telegram_token}/sendMessage"
    request: dict[str, object] = {"chat_id": address.chat_id, "text": text}
    if address.thread_id is not None:
        request["message_thread_id"] = address.thread_id
    if address.message_id is not None:
        request["reply_parameters"] = {"message_id": address.message_id, "allow_sending_without_reply": True}
    headers = {"Content-Type": "application/json"}
    return post(url, msgspec.json.encode(request), headers, timeout_s=_TIMEOUT_S)


class _ResponseParameters(msgspec.Struct, frozen=True):
    retry_after: int | None = None
    migrate_to_chat_id: int | None = None


class _Problem(msgspec.Struct, frozen=True):
    """What the Bot API says about a call that it refused."""

    description: str = ""
    parameters: _ResponseParameters = _ResponseParameters()


def _problem_of(response: HttpResponse) -> _Problem:
    if response.status < _CLIENT_ERROR:
        return _Problem()
    try:
        return msgspec.json.decode(response.body, type=_Problem)
    except msgspec.MsgspecError:
        return _Problem()


def _is_topic_gone(description: str) -> bool:
    return any(mark in description.lower() for mark in TOPIC_GONE)


def _with_retry_after(response: HttpResponse, problem: _Problem) -> HttpResponse:
    """Return the response with the ``retry_after`` that the Bot API puts into the body."""
    wait_s = problem.parameters.retry_after
    if wait_s is None or retry_after_s(response) is not None:
        return response
    return msgspec.structs.replace(response, headers={**response.headers, "retry-after": str(wait_s)})
