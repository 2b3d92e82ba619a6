"""Pauses of chats that Telegram demands with 429, and intervals between edits of growing answers.

The limits on messages per second, and per minute in groups, are kept by ``telegram.ext.AIORateLimiter``.
"""

from __future__ import annotations

import asyncio
import time

from ops.backoff import Backoff

_FIRST_S = 0.25
_MAX_S = 30.0
#: Telegram allows 20 messages a minute in a group: https://core.telegram.org/bots/faq#broadcasting-to-users
GROUP_FACTOR = 3.0


def telegram_backoff() -> Backoff:
    """Return the backoff of calls to Telegram: 0.25 s to 30 s."""
    return Backoff(_FIRST_S, _MAX_S)


class ChatPauses:
    """Remembers when messages of each chat may be sent and edited again.

    Args:
        edit_interval_s: Interval between two edits of a growing answer in one chat; three times that in a
            group.
    """

    def __init__(self, *, edit_interval_s: float) -> None:
        self._interval_s = edit_interval_s
        self._paused_until_s: dict[int, float] = {}
        self._edited_s: dict[int, float] = {}

    async def wait(self, chat_id: int) -> None:
        """Wait until a message may be sent or edited in a chat."""
        while (left_s := self._paused_until_s.get(chat_id, 0.0) - time.monotonic()) > 0:  # noqa: ASYNC110
            # Telegram may extend the pause meanwhile; that sets no event.
            await asyncio.sleep(left_s)
        self._paused_until_s.pop(chat_id, None)

    def pause(self, chat_id: int, wait_s: float) -> None:
        """Pause a chat, as Telegram demands with 429."""
        self._paused_until_s[chat_id] = time.monotonic() + wait_s

    def edit_wait_s(self, chat_id: int) -> float:
        """Return the seconds until a growing answer may be edited again in a chat."""
        interval_s = self._interval_s * (GROUP_FACTOR if chat_id < 0 else 1.0)
        due_s = max(
            self._edited_s.get(chat_id, -interval_s) + interval_s, self._paused_until_s.get(chat_id, 0.0)
        )
        return max(0.0, due_s - time.monotonic())

    def record_edit(self, chat_id: int) -> None:
        """Record that a growing answer is edited now."""
        self._edited_s[chat_id] = time.monotonic()
