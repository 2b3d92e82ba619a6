"""Completion callbacks of Dramatiq's groups, enqueued in the step that completes the last member."""

from __future__ import annotations

from typing import Any, NoReturn, cast

from dramatiq import Message
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits import RateLimiterBackend

from middleware.broker.actor_messages import delay_ms_of
from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import GroupMember
from ops.errors import BridgeError

#: Dramatiq's default (``dramatiq/middleware/group_callbacks.py`` of version 2.2).
_GROUP_TTL_MS = 86_400_000


class GroupSizes(RateLimiterBackend):
    """What ``group.run()`` tells about a group before it enqueues its members: how many there are.

    It is not a backend for rate limiters: those need one of Dramatiq's, for instance its ``RedisBackend``.

    Args:
        scripts: The store functions.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Note the size of a group; returns whether it is new."""
        return self._scripts.create_group(key, value, ttl_ms=ttl)

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> NoReturn:
        """Not supported."""
        _refuse()

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> NoReturn:
        """Not supported: the members of a group are counted where their jobs are settled."""
        _refuse()

    def incr_and_sum(self, key: str, keys: Any, amount: int, maximum: int, ttl: int) -> NoReturn:
        """Not supported."""
        _refuse()

    def wait(self, key: str, timeout: int) -> NoReturn:
        """Not supported."""
        _refuse()

    def wait_notify(self, key: str, ttl: int) -> NoReturn:
        """Not supported."""
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "This backend counts the members of groups only. Use dramatiq.rate_limits.backends.RedisBackend for "
        "rate limiters and barriers."
    )


class BridgeGroupCallbacks(GroupCallbacks):
    """Makes a message a member of its group, so that ``settle`` counts it.

    Dramatiq counts after the attempt and before its end is committed: a worker that dies in between counts a
    member twice. Here both are one step, and each job counts once.

    Args:
        scripts: The store functions.
    """

    def __init__(self, scripts: Scripts) -> None:
        super().__init__(GroupSizes(scripts), barrier_ttl=_GROUP_TTL_MS)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Note the group of a message that succeeded."""
        group_id = message.options.get("group_completion_uuid")
        callbacks = message.options.get("group_completion_callbacks")
        if exception is not None or message.failed or not (group_id and callbacks):
            return
        ours, job = cast("BridgeBroker", broker), cast("JobMessage", message)
        try:
            sent: list[Message[Any]] = [Message(**callback) for callback in callbacks]
            followers = tuple(ours.follower(job.job, each, delay_ms=delay_ms_of(each, None)) for each in sent)
        except BridgeError as error:
            job.refuse_follow_up(error)
            return
        job.group = GroupMember(group_id=group_id, ttl_ms=self.barrier_ttl, followers=followers)
