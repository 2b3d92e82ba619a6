"""Which hooks of which middleware the broker calls: only those that have an effect.

Dramatiq calls every hook of every middleware, the empty ones too: 40 calls for each job with ten middleware.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import dramatiq
from dramatiq.middleware import AgeLimit, Callbacks, GroupCallbacks, Pipelines, ShutdownNotifications

from middleware.broker.message import JobMessage
from middleware.results import stores_nothing

#: Dramatiq's middleware that act on options of a message or an actor, which built-in types do not have.
_FOR_ACTORS = (AgeLimit, Callbacks, GroupCallbacks, Pipelines, ShutdownNotifications)
#: Those options, as far as an actor may have them.
_OPTIONS = frozenset({"max_age", "notify_shutdown", "on_failure", "on_success", "pipe_ignore", "pipe_target"})
#: Packages whose subclasses of ``_FOR_ACTORS`` do nothing else; one of a user may count all jobs.
_KNOWN = ("dramatiq", "middleware")

#: A bound hook, and the middleware that has it.
Hook: TypeAlias = tuple[Callable[..., None], dramatiq.Middleware]


class HookLists:
    """The hooks that a broker calls, in the order of the calls.

    Args:
        broker: Its middleware and actors may change.
    """

    def __init__(self, broker: dramatiq.Broker) -> None:
        self._broker = broker
        self._size = 0
        self._lists: dict[tuple[str, str], list[Hook]] = {}

    def of(self, name: str, subject: object) -> list[Hook]:
        """Return the hooks to call.

        Args:
            name: Name of the hook, such as ``before_process_message``.
            subject: What it is called with first; for a job, hooks that do not concern it are left out.
        """
        scope = "all"
        if isinstance(subject, JobMessage):
            scope = "built-in" if subject.is_built_in else self._scope_of(subject)
        if self._size != len(self._broker.middleware):
            self._size, self._lists = len(self._broker.middleware), {}
        hooks = self._lists.get((name, scope))
        if hooks is None:
            hooks = self._lists[(name, scope)] = self._find(name, scope)
        return hooks

    def _scope_of(self, message: JobMessage) -> str:
        """Return ``plain`` for a job of a user's actor that uses none of the options in question."""
        actor = None if message.options else self._broker.actors.get(message.actor_name)
        return "plain" if actor is not None and _OPTIONS.isdisjoint(actor.options) else "all"

    def _find(self, name: str, scope: str) -> list[Hook]:
        empty = getattr(dramatiq.Middleware, name)
        hooks = [
            (getattr(item, name), item)
            for item in self._broker.middleware
            if getattr(type(item), name) is not empty and not stores_nothing(item) and _concerns(item, scope)
        ]
        if name.startswith("after_"):
            hooks.reverse()
        return hooks


def _concerns(item: dramatiq.Middleware, scope: str) -> bool:
    """Return whether a middleware may have an effect on the jobs of a scope."""
    if scope == "all" or not isinstance(item, _FOR_ACTORS):
        return True
    if scope == "built-in":
        return False
    # One that has a default of its own acts on jobs without options as well.
    has_default: Any = getattr(item, "max_age", None) or getattr(item, "notify_shutdown", False)
    return bool(has_default) or type(item).__module__.partition(".")[0] not in _KNOWN
