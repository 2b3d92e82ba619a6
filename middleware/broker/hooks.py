"""Which hooks of which middleware the broker calls: only those that have an effect.

Dramatiq calls every hook of every middleware, the empty ones too: 40 calls for each job with ten middleware.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

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


class _Lists(NamedTuple):
    """The hooks of one name for the jobs of each kind.

    Attributes:
        built_in: For those of built-in types.
        plain: For those of a user's actor that use none of ``_OPTIONS``.
        full: For all others, and for signals without a job. The same object as ``plain`` if they are equal.
    """

    built_in: list[Hook]
    plain: list[Hook]
    full: list[Hook]


class HookLists:
    """The hooks that a broker calls, in the order of the calls.

    Args:
        broker: Its middleware and actors may change.
    """

    def __init__(self, broker: dramatiq.Broker) -> None:
        self._broker = broker
        self._size = 0
        self._lists: dict[str, _Lists] = {}

    def of(self, name: str, subject: object) -> list[Hook]:
        """Return the hooks to call.

        Args:
            name: Name of the hook, such as ``before_process_message``.
            subject: What it is called with first; for a job, hooks that do not concern it are left out.
        """
        if self._size != len(self._broker.middleware):
            self._size, self._lists = len(self._broker.middleware), {}
        lists = self._lists.get(name)
        if lists is None:
            lists = self._lists[name] = self._find(name)
        if not isinstance(subject, JobMessage):
            return lists.full
        if subject.is_built_in:
            return lists.built_in
        return lists.plain if lists.plain is lists.full or self._is_plain(subject) else lists.full

    def _is_plain(self, message: JobMessage) -> bool:
        actor = None if message.options else self._broker.actors.get(message.actor_name)
        return actor is not None and _OPTIONS.isdisjoint(actor.options)

    def _find(self, name: str) -> _Lists:
        empty = getattr(dramatiq.Middleware, name)
        full = [
            (getattr(item, name), item)
            for item in self._broker.middleware
            if getattr(type(item), name) is not empty and not stores_nothing(item)
        ]
        if name.startswith("after_"):
            full.reverse()
        built_in = [hook for hook in full if not isinstance(hook[1], _FOR_ACTORS)]
        plain = [hook for hook in full if not _acts_on_options_only(hook[1])]
        return _Lists(built_in, full if plain == full else plain, full)


def _acts_on_options_only(item: dramatiq.Middleware) -> bool:
    """Return whether a middleware has no effect on a job without ``_OPTIONS``."""
    # One that has a default of its own acts on jobs without options as well.
    has_default = bool(getattr(item, "max_age", None)) or bool(getattr(item, "notify_shutdown", False))
    is_known = type(item).__module__.partition(".")[0] in _KNOWN
    return isinstance(item, _FOR_ACTORS) and is_known and not has_default
