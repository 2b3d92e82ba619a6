"""How much the job that this thread runs is trusted.

A module without Dramatiq: whatever submits jobs asks it, and need not load what runs them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Literal, TypeAlias

Trust: TypeAlias = Literal["operator", "member", "untrusted"]

_running: ContextVar[Trust | None] = ContextVar("running_trust", default=None)


def running_trust() -> Trust | None:
    """Return the trust of the job that the current thread runs; None outside of a job."""
    return _running.get()


def set_running_trust(trust: Trust | None) -> None:
    """Set it for the current thread; for what runs jobs, see ``middleware.context.set_current_job``."""
    _running.set(trust)


def capped(trust: Trust, parent: Trust | None) -> Trust:
    """Return the trust of a job that a running job submits: never more than its parent's.

    Args:
        trust: What the job claims.
        parent: Trust of the job that submits it; None if no job does.
    """
    if parent is None or parent == "operator" or trust == "untrusted":
        return trust
    return parent
