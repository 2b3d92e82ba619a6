"""Which hooks the broker calls: those of Dramatiq's middleware only for jobs that use their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, Pipelines, ShutdownNotifications
from dramatiq.middleware import Retries as RetriesOfDramatiq

from actors.registry import make_broker
from middleware.broker.actor_messages import job_of_message, message_of_job
from middleware.broker.broker import BridgeBroker
from middleware.broker.hooks import HookLists
from middleware.broker.message import JobMessage
from middleware.broker.transitions import Delivered
from middleware.retries import Retries
from ops.settings.load import load_settings

ENDED = "after_process_message"


class CountingCallbacks(Callbacks):
    """A user's middleware, which acts on every job."""


@pytest.fixture
def broker(tmp_path: Path) -> BridgeBroker:
    """The bridge's broker with three actors of a user."""
    made = make_broker(load_settings(tmp_path, environ={}))

    @dramatiq.actor(broker=made)
    def plain() -> None:
        """Use no options."""

    @dramatiq.actor(broker=made, on_success="plain")
    def calling() -> None:
        """Have a callback."""

    return made


def attempt(broker: BridgeBroker, actor: str, **options: Any) -> JobMessage:
    """Return an attempt of a job of an actor."""
    message = broker.get_actor(actor).message_with_options(**options)
    job = job_of_message(message, broker.types)
    delivered = Delivered(job.job_id, b"", 1, 0, 0)
    return JobMessage(job, delivered, "token", message_of_job(job, broker.types, queue="q", created_ms=0))


def called(hooks: HookLists, name: str, subject: JobMessage) -> Sequence[type]:
    """Return the middleware whose hook is called."""
    return [type(middleware) for _, middleware in hooks.of(name, subject)]


def test_options_decide_which_hooks_are_called(broker: BridgeBroker) -> None:
    """A job without options costs what one of a built-in type costs; ours come in either case."""
    hooks = HookLists(broker)
    plain = attempt(broker, "plain")
    without = called(hooks, ENDED, plain)
    assert not {Callbacks, Pipelines, ShutdownNotifications} & set(without)
    assert AgeLimit not in called(hooks, "before_process_message", plain)
    for job in (attempt(broker, "calling"), attempt(broker, "plain", max_age=1)):
        everything = called(hooks, ENDED, job)
        assert {Callbacks, Pipelines, ShutdownNotifications} <= set(everything)
        assert [kind for kind in everything if kind in without] == without
    plain.options["pipe_target"] = {}  # by a middleware, before the attempt
    assert Pipelines in called(hooks, ENDED, plain)


def test_a_default_or_a_class_of_the_user_counts_for_all_jobs(broker: BridgeBroker) -> None:
    """One that is added later, with a default age or with more to do, is called for jobs without options."""
    hooks = HookLists(broker)
    assert AgeLimit not in called(hooks, "before_process_message", attempt(broker, "plain"))
    broker.add_middleware(AgeLimit(max_age=1000))
    broker.add_middleware(CountingCallbacks())
    assert called(hooks, "before_process_message", attempt(broker, "plain"))[-1] is AgeLimit
    assert CountingCallbacks in called(hooks, ENDED, attempt(broker, "plain"))


def test_a_place_beside_a_middleware_of_dramatiq(broker: BridgeBroker) -> None:
    """``AgeLimit`` is the first; a class of Dramatiq that we replace names ours; others must be there."""
    outside, inside = CountingCallbacks(), CountingCallbacks()
    broker.add_middleware(outside, before=AgeLimit)
    broker.add_middleware(inside, after=RetriesOfDramatiq)
    assert broker.middleware[0] is outside
    at = broker.middleware.index(inside)
    assert type(broker.middleware[at - 1]) is Retries
    with pytest.raises(ValueError, match="CurrentMessage"):
        broker.add_middleware(CountingCallbacks(), before=CurrentMessage)
