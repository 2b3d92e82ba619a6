"""State of the local Bot API server, and the methods of the Bot API."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ingress.demo.bot_api.faults import CUT, TERMINATED, ApiError, Fault

TEXT_MAX_UNITS = 4096
FILE_MAX_BYTES = 20_000_000
_POLL_MAX_S = 50
_CALLS_KEPT = 20_000


class Call(NamedTuple):
    """A call of a method.

    Attributes:
        method: Its name.
        parameters: As received.
        at_s: When it was received, on the monotonic clock.
    """

    method: str
    parameters: dict[str, Any]
    at_s: float


def _bad(description: str) -> ApiError:
    return ApiError(400, f"Bad Request: {description}")


def units(text: str) -> int:
    """Return the length of a text in UTF-16 units, as Telegram counts it."""
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


class BotApiMethods:
    """The chats of one bot, and the methods of the Bot API; thread-safe.

    Args:
        token: Token of the bot.
        username: User name of the bot.

    Attributes:
        bot: The bot as a user.
        updates: All updates, by id.
        calls: The last 20,000 calls.
        presses: Callback query id -> text of the answer.
        serving: Whether polls may wait.
    """

    def __init__(self, token: str, *, username: str) -> None:
        self.token = token
        self.bot = {
            "id": int(token.partition(":")[0]),
            "is_bot": True,
            "first_name": "Bridge",
            "username": username,
        }
        self.calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        self.presses: dict[str, str] = {}
        self._changed = threading.Condition(threading.RLock())
        self.updates: dict[int, dict[str, Any]] = {}
        self._updates: list[dict[str, Any]] = []
        self._next_update = 500_000_001
        self._next_message = 1
        self._messages: dict[tuple[int, int], dict[str, Any]] = {}
        self._edits: list[tuple[int, int, str]] = []
        self._files: dict[str, tuple[str, bytes]] = {}
        self._pressed: set[str] = set()
        self._migrated: dict[int, int] = {}
        self._topics: set[tuple[int, int]] = set()
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._poll = 0
        self.serving = False

    def add(self, content: dict[str, Any]) -> int:
        """Add an update of any kind; return its id."""
        with self._changed:
            update_id = self._next_update
            self._next_update += 1
            self.updates[update_id] = {"update_id": update_id, **content}
            self._updates.append(self.updates[update_id])
            self._changed.notify_all()
        return update_id

    def _receive(
        self,
        chat_id: int,
        user_id: int | None,
        content: dict[str, Any],
        *,
        silent: bool = False,
        kind: str = "message",
    ) -> int:
        with self._changed:
            message = {
                "message_id": self._next_message,
                "from": user_of(chat_id if user_id is None else user_id),
                "chat": chat_of(chat_id),
                "date": int(time.time()),
                **content,
            }
            if kind == "channel_post":
                message["sender_chat"] = message["chat"] = {**chat_of(chat_id), "type": "channel"}
                del message["from"]
            if content.get("text", "").startswith("/"):
                length = units(content["text"].split()[0])
                message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
            self._messages[chat_id, self._next_message] = message
            self._next_message += 1
            return 0 if silent else self.add({kind: message})

    def _answer(self, token: str, method: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        with self._changed:
            self.calls.append(Call(method, given, time.monotonic()))
            planned = self._faults[method.lower()]
            fault = planned.popleft() if planned else None
        try:
            result = self._call(token, method, given, fault)
        except ApiError as error:
            if error.code == CUT:
                return None
            return _error(error)
        finally:
            with self._changed:
                self._changed.notify_all()
        return 200, {"ok": True, "result": result}

    def _call(self, token: str, method: str, given: dict[str, Any], fault: Fault | None) -> Any:
        if token != self.token:
            raise ApiError(401, "Unauthorized")
        if fault is not None and not fault.after:
            raise ApiError(fault.status, fault.description, fault.retry_after_s)
        run = _METHODS.get(method.lower())
        if run is None:
            raise ApiError(404, "Not Found")
        result = run(self, _decoded(given))
        if fault is not None:
            raise ApiError(fault.status, fault.description, fault.retry_after_s)
        return result

    def _get_me(self, _given: dict[str, Any]) -> Any:
        return {
            **self.bot,
            "can_join_groups": True,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
        }

    def _get_updates(self, given: dict[str, Any]) -> Any:
        offset = int(given.get("offset", 0))
        limit = min(max(int(given.get("limit", 100)), 1), 100)
        deadline_s = time.monotonic() + min(int(given.get("timeout", 0)), _POLL_MAX_S)
        with self._changed:
            self._poll += 1
            ours = self._poll
            self._changed.notify_all()
            if offset < 0:
                self._updates = self._updates[offset:]
            else:
                self._updates = [update for update in self._updates if update["update_id"] >= offset]
            while not self._updates and self.serving:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
                if self._poll != ours:
                    raise ApiError(409, TERMINATED)
            return self._updates[:limit]

    def _send_message(self, given: dict[str, Any]) -> Any:
        with self._changed:
            chat_id, text = self._chat_and_text(given, "message is too long")
            thread = int(given.get("message_thread_id", 0))
            if thread and (chat_id, thread) not in self._topics:
                raise _bad("message thread not found")
            reply = given.get("reply_parameters", {})
            replied = reply.get("message_id")
            known = replied is None or (chat_id, replied) in self._messages
            if not known and not reply.get("allow_sending_without_reply"):
                raise _bad("message to be replied not found")
            message: dict[str, Any] = {
                "message_id": self._next_message,
                "from": self.bot,
                "chat": chat_of(chat_id),
                "date": int(time.time()),
                "text": text,
                **in_topic(thread),
            }
            if replied is not None and known:
                inner = self._messages[chat_id, replied]
                message["reply_to_message"] = {
                    name: value for name, value in inner.items() if name != "reply_to_message"
                }
            if "reply_markup" in given:
                message["reply_markup"] = given["reply_markup"]
            self._messages[chat_id, self._next_message] = message
            self._edits.append((chat_id, self._next_message, text))
            self._next_message += 1
            return message

    def _edit_message_text(self, given: dict[str, Any]) -> Any:
        with self._changed:
            chat_id, text = self._chat_and_text(given, "MESSAGE_TOO_LONG")
            message_id = int(given["message_id"])
            message = self._messages.get((chat_id, message_id))
            if message is None or message.get("from") != self.bot:
                raise _bad("message to edit not found")
            markup = given.get("reply_markup")
            if (text, markup) == (message["text"], message.get("reply_markup")):
                raise _bad(
                    "message is not modified: specified new message content and reply markup are exactly the "
                    "same as a current content and reply markup of the message"
                )
            changed = {**message, "text": text, "edit_date": int(time.time())}
            changed.pop("reply_markup", None)
            if markup is not None:
                changed["reply_markup"] = markup
            self._messages[chat_id, message_id] = changed
            self._edits.append((chat_id, message_id, text))
            return changed

    def _chat_and_text(self, given: dict[str, Any], too_long: str) -> tuple[int, str]:
        chat_id = int(given.get("chat_id", 0))
        if chat_id in self._migrated:
            later = self._migrated[chat_id]
            raise ApiError(400, "Bad Request: group chat was upgraded to a supergroup chat", later=later)
        if not any(chat == chat_id for chat, _ in self._messages):
            raise _bad("chat not found")
        text = str(given.get("text", "")).strip()
        if text == "":
            raise _bad("message text is empty")
        if units(text) > TEXT_MAX_UNITS:
            raise _bad(too_long)
        return chat_id, text

    def _answer_callback_query(self, given: dict[str, Any]) -> Any:
        query_id = str(given.get("callback_query_id", ""))
        with self._changed:
            if query_id not in self._pressed:
                raise _bad("query is too old and response timeout expired or query ID is invalid")
            self._pressed.discard(query_id)
            self.presses[query_id] = str(given.get("text", ""))
        return True

    def _get_file(self, given: dict[str, Any]) -> Any:
        file_id = str(given.get("file_id", ""))
        if file_id not in self._files:
            raise _bad("wrong file_id or the file is temporarily unavailable")
        path, data = self._files[file_id]
        if len(data) > FILE_MAX_BYTES:
            raise _bad("file is too big")
        return {
            "file_id": file_id,
            "file_unique_id": f"u{file_id}",
            "file_size": len(data),
            "file_path": path,
        }

    def _file_content(self, token: str, path: str) -> bytes | None:
        with self._changed:
            self.calls.append(Call("download", {"path": path}, time.monotonic()))
            if token != self.token:
                return None
            return next((data for known, data in self._files.values() if known == path), None)


_METHODS: dict[str, Callable[[BotApiMethods, dict[str, Any]], Any]] = {
    "getme": BotApiMethods._get_me,  # noqa: SLF001 (table of its methods)
    "getupdates": BotApiMethods._get_updates,  # noqa: SLF001
    "sendmessage": BotApiMethods._send_message,  # noqa: SLF001
    "editmessagetext": BotApiMethods._edit_message_text,  # noqa: SLF001
    "answercallbackquery": BotApiMethods._answer_callback_query,  # noqa: SLF001
    "getfile": BotApiMethods._get_file,  # noqa: SLF001
}


def user_of(user_id: int) -> dict[str, Any]:
    """Return a user in Telegram's form."""
    return {"id": abs(user_id), "is_bot": False, "first_name": f"User {abs(user_id)}"}


def chat_of(chat_id: int) -> dict[str, Any]:
    """Return a chat in Telegram's form; negative ids are groups."""
    if chat_id < 0:
        return {"id": chat_id, "type": "supergroup", "title": f"Group {-chat_id}"}
    return {"id": chat_id, "type": "private", "first_name": f"User {chat_id}"}


def _decoded(given: dict[str, Any]) -> dict[str, Any]:
    """Parse the parameters that are JSON within a form."""
    nested = {"reply_parameters", "reply_markup"}
    return {
        name: json.loads(value) if name in nested and isinstance(value, str) else value
        for name, value in given.items()
    }


def in_topic(thread: int) -> dict[str, Any]:
    """Return the fields of a message in a topic; none for 0."""
    return {"message_thread_id": thread, "is_topic_message": True} if thread else {}


def _error(error: ApiError) -> tuple[int, dict[str, Any]]:
    document: dict[str, Any] = {"ok": False, "error_code": error.code, "description": str(error)}
    if error.retry_after_s:
        document["parameters"] = {"retry_after": error.retry_after_s}
    if error.later:
        document["parameters"] = {"migrate_to_chat_id": error.later}
    return error.code, document
