"""Delivers results to a Telegram chat, for jobs that the bot does not answer itself."""

from __future__ import annotations

import msgspec

from actors.egress.http_post import post, require_success, retry_after_s
from actors.egress.notify import text_of
from actors.egress.outcome import Delivered, Outcome
from middleware.job.records import JobRecord
from middleware.job.texts import result_text
from ops.errors import JobRefused
from ops.http.client import HttpResponse
from ops.settings.load import LoadedSettings

#: Longest text of one message that the Bot API allows.
MESSAGE_MAX = 4096
_TIMEOUT_S = 20.0
_SESSION = "tg_"


def deliver(outcome: Outcome, loaded: LoadedSettings, _which: str) -> Delivered:
    """Send the result as a reply to the message that requested it.

    Raises:
        JobFailed: The Bot API did not accept it now; worth a retry.
        JobRefused: The token is missing, or the chat is unknown or no longer allowed.
    """
    token = loaded.settings.telegram_token
    if not token:
        raise JobRefused("No Telegram bot is configured.", remedy="Set telegram_token.")
    chat = chat_of(outcome.record)
    if chat not in loaded.settings.telegram_allow:
        raise JobRefused(f"The chat {chat} is not allowed.", remedy="Add it to telegram_allow.")
    url = f"{loaded.settings.telegram_api.rstrip('/')}/bot{token}/sendMessage"
    request: dict[str, object] = {"chat_id": chat, "text": message_of(outcome)}
    message_id = outcome.record.metadata.get("message_id", "")
    if message_id.isdecimal():
        request["reply_parameters"] = {"message_id": int(message_id), "allow_sending_without_reply": True}
    headers = {"Content-Type": "application/json"}
    response = post(url, msgspec.json.encode(request), headers, timeout_s=_TIMEOUT_S)
    require_success(_with_retry_after(response), "Telegram")
    return Delivered(sink="telegram", place=f"chat {chat}")


def chat_of(record: JobRecord) -> int:
    """Return the id of the chat that a job came from.

    Raises:
        JobRefused: Neither its metadata nor its session names a chat.
    """
    session = record.session_id
    named = session.removeprefix(_SESSION) if session is not None and session.startswith(_SESSION) else ""
    chat = record.metadata.get("chat_id", named)
    try:
        return int(chat)
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


class _ResponseParameters(msgspec.Struct, frozen=True):
    retry_after: int | None = None


class _ErrorBody(msgspec.Struct, frozen=True):
    parameters: _ResponseParameters = _ResponseParameters()


def _with_retry_after(response: HttpResponse) -> HttpResponse:
    """Return the response with the ``retry_after`` that the Bot API puts into the body."""
    if retry_after_s(response) is not None:
        return response
    try:
        wait_s = msgspec.json.decode(response.body, type=_ErrorBody).parameters.retry_after
    except msgspec.MsgspecError:
        return response
    if wait_s is None:
        return response
    return msgspec.structs.replace(response, headers={**response.headers, "retry-after": str(wait_s)})
