"""The local Bot API server: what users do, what the bot has done, and which requests fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ingress.demo.bot_api.faults import Fault
from ingress.demo.bot_api.http_server import BotApiHttpServer
from ingress.demo.bot_api.methods import BotApiMethods, in_topic, user_of


class BotApi(BotApiMethods):
    """The server; a context manager that starts and stops it.

    Args:
        token: Token of its only bot.
        username: User name of that bot.
    """

    def __init__(
        self,
        token: str = "7000000001:AAlocal-bot-api-not-a-secret-00000",  # noqa: S107 (no secret)
        *,
        username: str = "bridge_test_bot",
    ) -> None:
        super().__init__(token, username=username)
        self._port = 0
        self._server: BotApiHttpServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Value of the setting ``telegram_api``."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start to listen; after ``stop`` on the same port, with all chats and updates."""
        self._server = BotApiHttpServer(self._port, self._answer, self._file_content)
        self._port = self._server.server_address[1]
        self.serving = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut all connections."""
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

    def say(
        self, chat_id: int, text: str, *, user_id: int | None = None, thread: int = 0, **content: Any
    ) -> int:
        """Send the bot a text; return the update's id.

        Args:
            chat_id: The chat.
            text: The text.
            user_id: Who sends it; the chat when None.
            thread: Topic; created if it is new.
            **content: Further fields of the message, such as ``reply_to_message`` and ``quote``.
        """
        if thread:
            with self._changed:
                self._topics.add((chat_id, thread))
        return self._receive(chat_id, user_id, {"text": text, **in_topic(thread), **content})

    def post(self, chat_id: int, text: str) -> int:
        """Post a text in a channel; return the update's id."""
        return self._receive(chat_id, None, {"text": text}, kind="channel_post")

    def change(self, update_id: int, text: str) -> int:
        """Edit the message of an update; return the new update's id."""
        with self._changed:
            kind, message = next(
                (name, part) for name, part in self.updates[update_id].items() if name != "update_id"
            )
            edited = {**message, "text": text, "edit_date": int(time.time())}
            self._messages[message["chat"]["id"], message["message_id"]] = edited
            return self.add({f"edited_{kind}": edited})

    def migrate(self, chat_id: int, later: int, *, announce: bool = True) -> None:
        """Turn a group into a supergroup with another id; every call for the old one fails from now on.

        Args:
            chat_id: The group.
            later: Id of the supergroup.
            announce: Whether both chats get the service message.
        """
        with self._changed:
            self._migrated[chat_id] = later
        for chat, content in (
            (chat_id, {"migrate_to_chat_id": later}),
            (later, {"migrate_from_chat_id": chat_id}),
        ):
            self._receive(chat, None, content, silent=not announce)

    def delete_topic(self, chat_id: int, thread: int) -> None:
        """Delete a topic."""
        with self._changed:
            self._topics.discard((chat_id, thread))

    def attach(
        self, chat_id: int, name: str, data: bytes, *, caption: str | None = None, photo: bool = False
    ) -> int:
        """Send the bot a document or a photo; return the update's id."""
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
        return self._receive(chat_id, None, content if caption is None else {**content, "caption": caption})

    def speak(self, chat_id: int, data: bytes) -> int:
        """Send the bot a voice message; return the update's id."""
        with self._changed:
            file_id = f"file-{len(self._files)}"
            self._files[file_id] = (f"voice/{file_id}.oga", data)
        about = {"file_id": file_id, "file_unique_id": f"u{file_id}", "file_size": len(data), "duration": 1}
        return self._receive(chat_id, None, {"voice": about})

    def press(self, chat_id: int, message_id: int, data: str, *, user_id: int | None = None) -> str:
        """Press a button under a message; return the callback query's id."""
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
        """Send an update again, as Telegram does if it was not confirmed."""
        with self._changed:
            self._updates.insert(0, self.updates[update_id])
            self._changed.notify_all()

    def know(self, chat_id: int) -> None:
        """Allow the bot to write to a chat that has not written to it."""
        self._receive(chat_id, None, {"text": ""}, silent=True)

    def fail(self, method: str, fault: Fault, *, times: int = 1) -> None:
        """Let the next calls of a method fail.

        Args:
            method: Name of the method.
            fault: How they fail.
            times: How many of them.
        """
        with self._changed:
            self._faults[method.lower()].extend([fault] * times)

    def messages(self, chat_id: int) -> list[dict[str, Any]]:
        """Return the current messages of the bot in a chat, oldest first."""
        with self._changed:
            found = sorted(key for key in self._messages if key[0] == chat_id)
            return [self._messages[key] for key in found if self._messages[key].get("from") == self.bot]

    def texts(self, chat_id: int) -> list[str]:
        """Return the texts of ``messages``."""
        return [message["text"] for message in self.messages(chat_id)]

    def versions(self, chat_id: int, message_id: int) -> list[str]:
        """Return all texts that a message has had, in order."""
        with self._changed:
            return [text for chat, message, text in self._edits if (chat, message) == (chat_id, message_id)]

    def unconfirmed(self) -> int:
        """Return the number of updates that no poll has confirmed."""
        with self._changed:
            return len(self._updates)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until a condition is true; it is checked after every request.

        Raises:
            TimeoutError: It was not true in time.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(
                        f"Not true within {timeout_s:g} s. Last calls: {list(self.calls)[-5:]}"
                    )
                self._changed.wait(min(left_s, 0.2))
