"""A local Telegram: a server that speaks the Bot API over HTTP, for tests and for ``3ox demo``.

    with BotApi() as api:              # BRIDGE_TELEGRAM_API=api.url, BRIDGE_TELEGRAM_TOKEN=api.token
        api.say(42, "hello")           # somebody writes to the bot
        api.wait(lambda: "hi" in api.texts(42))
        api.fail("sendMessage", flood(3), times=2)

It behaves as Telegram does where a bot can tell: updates stay until a later ``offset`` confirms them, a poll
ends an older one with 409, texts are trimmed and bounded by 4096 UTF-16 units, errors have Telegram's words.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ingress.demo.bot_api_http import ApiServer
from ingress.demo.bot_api_protocol import (
    Call,
    Fault,
    Protocol,
    broken,
    conflict,
    dropped,
    flood,
    units,
    user_of,
)

__all__ = ["BotApi", "Call", "Fault", "broken", "conflict", "dropped", "flood", "units"]


class BotApi(Protocol):
    """The server; a context manager.

    Args:
        token: Of the one bot that it knows.
        username: Of that bot.
        chat_messages_per_s: More messages and edits in one chat within a second are refused with 429;
            None: no limit.

    Attributes:
        calls: What came in, the last 20,000.
        presses: Callback query id -> the answer it got.
    """

    def __init__(
        self,
        token: str = "7000000001:AAlocal-bot-api-not-a-secret-00000",  # noqa: S107 (of a bot that is only here)
        *,
        username: str = "bridge_test_bot",
        chat_messages_per_s: int | None = None,
    ) -> None:
        super().__init__(token, username=username, chat_messages_per_s=chat_messages_per_s)
        self._port = 0
        self._server: ApiServer | None = None
        self._thread: threading.Thread | None = None

    # -- running it

    @property
    def url(self) -> str:
        """What goes into ``telegram_api``."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; after ``stop``, on the same port and with everything it knew."""
        self._server = ApiServer(self._port, self._answer, self._give_file)
        self._port = self._server.server_address[1]
        self.serving = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is None or self._thread is None:
            return
        with self._changed:
            self.serving = False
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_all()
        self._thread.join(10.0)
        self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- what people do

    def say(self, chat_id: int, text: str, *, user_id: int | None = None) -> int:
        """Write to the bot, and give the update's id."""
        return self._arrive(chat_id, user_id, {"text": text})

    def attach(
        self, chat_id: int, name: str, data: bytes, *, caption: str | None = None, photo: bool = False
    ) -> int:
        """Send the bot a document or a photo, and give the update's id."""
        with self._changed:
            number = len(self._files)
            file_id = f"file-{number}"
            folder = "photos" if photo else "documents"
            self._files[file_id] = (f"{folder}/file_{number}{'.jpg' if photo else ''}", data)
        about = {"file_id": file_id, "file_unique_id": f"u{number}", "file_size": len(data)}
        content: dict[str, Any] = (
            {
                "photo": [
                    {**about, "file_id": "file-none", "file_size": 1, "width": 9, "height": 9},
                    {**about, "width": 90, "height": 90},
                ]
            }
            if photo
            else {"document": {**about, "file_name": name}}
        )
        return self._arrive(chat_id, None, content if caption is None else {**content, "caption": caption})

    def press(self, chat_id: int, message_id: int, data: str, *, user_id: int | None = None) -> str:
        """Press a button under a message, and give the callback query's id."""
        with self._changed:
            query_id = f"q{self._next_update}"
            self._pressed.add(query_id)
            query = {
                "id": query_id,
                "from": user_of(chat_id if user_id is None else user_id),
                "message": self._messages[chat_id, message_id],
                "chat_instance": str(chat_id),
                "data": data,
            }
            self.add({"callback_query": query})
        return query_id

    def repeat(self, update_id: int) -> None:
        """Give an update again, as Telegram does when the confirmation was lost."""
        with self._changed:
            self._updates.insert(0, self.updates[update_id])
            self._changed.notify_all()

    def know(self, chat_id: int) -> None:
        """Let the bot write to a chat that has not written to it in this life."""
        self._arrive(chat_id, None, {"text": ""}, silent=True)

    def fail(self, method: str, fault: Fault, *, times: int = 1) -> None:
        """Answer the next requests of a method in this way."""
        with self._changed:
            self._faults[method.lower()].extend([fault] * times)

    # -- what the bot did

    def messages(self, chat_id: int) -> list[dict[str, Any]]:
        """Give the bot's messages in a chat as they stand now, oldest first."""
        with self._changed:
            found = sorted(key for key in self._messages if key[0] == chat_id)
            return [self._messages[key] for key in found if self._messages[key]["from"] == self.bot]

    def texts(self, chat_id: int) -> list[str]:
        """Give the texts of ``messages``."""
        return [message["text"] for message in self.messages(chat_id)]

    def versions(self, chat_id: int, message_id: int) -> list[str]:
        """Give every text that one message has had."""
        with self._changed:
            return [text for chat, message, text in self._edits if (chat, message) == (chat_id, message_id)]

    def unconfirmed(self) -> int:
        """Count the updates that no poll has confirmed."""
        with self._changed:
            return len(self._updates)

    def wait(self, true: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until something holds; looked at after every request.

        Raises:
            TimeoutError: It did not come to hold.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not true():
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"not within {timeout_s:g} s; the last calls: {list(self.calls)[-5:]}")
                self._changed.wait(min(left_s, 0.2))
