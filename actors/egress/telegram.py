"""Deliver results to a Telegram chat, for jobs that the bot does not answer itself."""

from __future__ import annotations

import msgspec

from actors.egress.http_post import Answer, post, require_taken
from actors.egress.notify import text_of
from actors.egress.outcome import Delivered, Outcome, result_text
from middleware.job.records import JobRecord
from ops.errors import JobRefused
from ops.settings.load import LoadedSettings

#: Longest text of one message, by the Bot API.
MESSAGE_MAX = 4096
_TIMEOUT_S = 20.0
_SESSION = "tg_"


def deliver(outcome: Outcome, loaded: LoadedSettings, _which: str) -> Delivered:
    """Send the result as a reply to the message that asked for it.

    Raises:
        JobFailed: The Bot API did not take it now; worth another attempt.
        JobRefused: There is no token, the chat is not known or not allowed any more.
    """
    token = loaded.settings.telegram_token
    if not token:
        raise JobRefused("there is no Telegram bot: telegram_token is empty.", remedy="Set it.")
    chat = chat_of(outcome.record)
    if chat not in loaded.settings.telegram_allow:
        raise JobRefused(f"the chat {chat} is not allowed.", remedy="Add it to telegram_allow.")
    url = f"{loaded.settings.telegram_api.rstrip('/')}/bot{token}/sendMessage"
    request: dict[str, object] = {"chat_id": chat, "text": message_of(outcome)}
    asked = outcome.record.metadata.get("message_id", "")
    if asked.isdecimal():
        request["reply_parameters"] = {"message_id": int(asked), "allow_sending_without_reply": True}
    headers = {"Content-Type": "application/json"}
    answer = post(url, msgspec.json.encode(request), headers, timeout_s=_TIMEOUT_S)
    require_taken(_with_parameters(answer), "Telegram")
    return Delivered(sink="telegram", place=f"chat {chat}")


def chat_of(record: JobRecord) -> int:
    """Give the chat that a job came from.

    Raises:
        JobRefused: The job does not say.
    """
    session = record.session_id
    named = session.removeprefix(_SESSION) if session is not None and session.startswith(_SESSION) else ""
    said = record.metadata.get("chat_id", named)
    try:
        return int(said)
    except ValueError as error:
        raise JobRefused("the job does not say which chat it came from.") from error


def message_of(outcome: Outcome) -> str:
    """Give the reply: the answer alone if there is one, otherwise what ended and how; one message long.

    More than one could not be sent in one step: an attempt that fails in between would say the first twice.
    """
    record = outcome.record
    said = result_text(record).strip() if record.status == "completed" else ""
    text = said if said else f"{outcome.title}\n\n{text_of(outcome)}"
    more = f" …\n\n3ox jobs {record.job_id}"
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - len(more)] + more


class _Parameters(msgspec.Struct, frozen=True):
    retry_after: int | None = None


class _Refusal(msgspec.Struct, frozen=True):
    parameters: _Parameters = _Parameters()


def _with_parameters(answer: Answer) -> Answer:
    """The Bot API says in the body when to come back."""
    if answer.retry_after_s is not None:
        return answer
    try:
        said = msgspec.json.decode(answer.body, type=_Refusal).parameters.retry_after
    except msgspec.MsgspecError:
        return answer
    return Answer(answer.status, answer.body, said)
