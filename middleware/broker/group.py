"""Commits of threads that end at the same time share one round trip.

A thread that finds nobody at it goes at once and takes along whatever has been put down meanwhile; the others
wait for their reply. A single commit is not delayed, and several share the system calls of one round trip
on both sides; draining a queue of no-op jobs took about a tenth less processor time per job with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import hiredis

from ops.resp import Argument, Reply, as_error

#: More at once would keep the store from everybody else.
_TOGETHER_MAX = 32


class _Turn:
    """One thread's command, and how it went."""

    __slots__ = ("_gate", "command", "error", "leads", "reply")

    def __init__(self, command: tuple[Argument, ...]) -> None:
        self.command = command
        self.reply: Reply = None
        self.error: BaseException | None = None
        self.leads = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self) -> None:
        """Wait for the reply, or for the lead; the leader's round trip bounds it."""
        self._gate.acquire()

    def go_on(self) -> None:
        """Let the thread that waits go on."""
        self._gate.release()

    def outcome(self) -> Reply:
        if self.error is not None:
            raise self.error
        if isinstance(self.reply, hiredis.ReplyError):
            raise as_error(self.reply)
        return self.reply


class GroupRunner:
    """Runs commands, those of several threads together.

    Args:
        exchange: Sends commands and gives their replies, error replies among them unraised.
    """

    def __init__(self, exchange: Callable[[Sequence[tuple[Argument, ...]]], list[Reply]]) -> None:
        self._exchange = exchange
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []
        self._busy = False

    def run(self, command: tuple[Argument, ...]) -> Reply:
        """Run a command.

        Raises:
            StoreUnreachable: No answer; all that went together hear the same.
            StoreError: The store answered this command with an error.
        """
        turn = _Turn(command)
        with self._lock:
            self._waiting.append(turn)
            leads = not self._busy
            self._busy = True
        if not leads:
            turn.wait()
            leads = turn.leads
        if leads:
            self._lead(turn)
        return turn.outcome()

    def _lead(self, turn: _Turn) -> None:
        with self._lock:
            together, self._waiting = self._waiting[:_TOGETHER_MAX], self._waiting[_TOGETHER_MAX:]
        try:
            replies = self._exchange([each.command for each in together])
            for each, reply in zip(together, replies, strict=True):
                each.reply = reply
        except Exception as error:  # noqa: BLE001 (raised again in each thread that took part)
            for each in together:
                each.error = error
        with self._lock:
            successor = self._waiting[0] if self._waiting else None
            self._busy = successor is not None
        for each in together:
            if each is not turn:
                each.go_on()
        if successor is not None:
            successor.leads = True
            successor.go_on()
