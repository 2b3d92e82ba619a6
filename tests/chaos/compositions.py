"""Sends pipelines, groups and jobs with callbacks at a steady rate, and notes each one.

A message that could not be sent is sent again, as a caller does: the same pipeline or the same group.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from dramatiq import Message, group, pipeline
from msgspec import Struct

from actors import broker
from ops.errors import QueueFull, StoreUnreachable
from tests.chaos import user_jobs

Kind = Literal["pipeline", "group", "uneven", "doomed"]
#: Kinds and their shares.
_SHARES: dict[Kind, float] = {"pipeline": 0.5, "group": 0.2, "uneven": 0.2, "doomed": 0.1}
_DELAY_SHARE = 0.1
_TWICE_SHARE = 0.05
_AGAIN_S = 0.1


class Composition(Struct, frozen=True):
    """What is sent together.

    Attributes:
        chain: Its name.
        kind: Which.
        members: Plain members of a group.
        pipelines: Pipelines of two steps among the members of a group; for a pipeline: its steps.
        sent: Whether the caller was told that it had been sent.
    """

    chain: str
    kind: Kind
    members: int = 0
    pipelines: int = 0
    sent: bool = False


class Sender:
    """Sends compositions until a time, in a thread of its own.

    Args:
        seed: Of what is sent; also makes the names unique.
        rate: How many in a second.
        until_s: End, in seconds since 1970.
        file: Gets the notes.
        stopping: Ends it early.
    """

    def __init__(self, seed: int, rate: float, until_s: float, file: Path, stopping: threading.Event) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (to be repeatable)
        self._seed = seed
        self._rate = rate
        self._until_s = until_s
        self._stopping = stopping
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._thread = threading.Thread(target=self._run, name="compositions", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _run(self) -> None:
        due_s, number = time.time(), 0
        while not self._stopping.is_set() and due_s < self._until_s:
            self._stopping.wait(max(0.0, due_s - time.time()))
            due_s += 1 / self._rate
            number += 1
            composition, run = self._next(f"c{self._seed}-{number}")
            self._note(composition)
            twice = self._rng.random() < _TWICE_SHARE
            if self._send(run) and (not twice or self._send(run)):
                self._note(msgspec.structs.replace(composition, sent=True))

    def _note(self, composition: Composition) -> None:
        os.write(self._fd, msgspec.json.encode(composition) + b"\n")

    def _send(self, run: Callable[[], object]) -> bool:
        while not self._stopping.is_set():
            try:
                run()
            except (StoreUnreachable, QueueFull):
                self._stopping.wait(_AGAIN_S)
            else:
                return True
        return False

    def _next(self, chain: str) -> tuple[Composition, Callable[[], object]]:
        rng = self._rng
        kind: Kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        delay = rng.randrange(50, 2000) if rng.random() < _DELAY_SHARE else None
        if kind == "pipeline":
            steps = rng.randint(3, 5)
            found = self._pipeline(chain, steps)
            return Composition(chain, kind, pipelines=steps), lambda: found.run(delay=delay)  # type: ignore[no-untyped-call]
        if kind == "group":
            members, pipelines = rng.randint(2, 6), rng.randint(0, 2)
            together = self._group(chain, members, pipelines)
            return Composition(chain, kind, members, pipelines), lambda: together.run(delay=delay)  # type: ignore[no-untyped-call]
        alone: Message[Any] = (
            user_jobs.uneven.message(chain=chain, seconds=self._seconds())
            if kind == "uneven"
            else user_jobs.doomed.message(chain=chain)
        )
        return Composition(chain, kind), lambda: broker.enqueue(alone, delay=delay)

    def _pipeline(self, chain: str, steps: int) -> pipeline:
        actor = user_jobs.step
        messages = [actor.message("", chain=chain, at=0, seconds=self._seconds())]
        # Of these, the first argument is what the step before returns.
        messages += [
            actor.message_with_options(kwargs={"chain": chain, "at": at, "seconds": self._seconds()})
            for at in range(1, steps)
        ]
        return pipeline(messages)

    def _group(self, chain: str, members: int, pipelines: int) -> group:
        children: list[object] = [
            user_jobs.member.message(chain=chain, at=at, seconds=self._seconds()) for at in range(members)
        ]
        children += [self._pipeline(f"{chain}.{at}", 2) for at in range(pipelines)]
        together = group(children)  # type: ignore[no-untyped-call]
        for at in range(2):
            callback = user_jobs.gathered.message(chain=chain, at=at)
            together.add_completion_callback(callback)  # type: ignore[no-untyped-call]
        return together

    def _seconds(self) -> float:
        return round(self._rng.choice((0.0, 0.0, self._rng.uniform(0.01, 0.4))), 3)


def read_compositions(lines: Iterable[bytes]) -> list[Composition]:
    """Read the notes: each composition once, as sent if the caller was told so."""
    found: dict[str, Composition] = {}
    for line in lines:
        composition = msgspec.json.decode(line, type=Composition)
        found[composition.chain] = composition
    return list(found.values())
