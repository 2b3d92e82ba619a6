"""What the store no longer has is looked up in the history, which is opened only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ops.errors import JobNotFound

if TYPE_CHECKING:
    from ingress.catalog import Catalog
    from ingress.dispatch import Bridge
    from middleware.job.records import OutputChunk

_Answer = TypeVar("_Answer")


def or_past(bridge: Bridge, live: Callable[[], _Answer], past: Callable[[Catalog], _Answer]) -> _Answer:
    """Give what the store says of a job, or what the history does if the store does not know it.

    Args:
        bridge: Whose.
        live: Asks the store.
        past: Asks the history.

    Raises:
        JobNotFound: Neither has it.
    """
    try:
        return live()
    except JobNotFound as error:
        return _ask(bridge, past, error)


def past_pieces(bridge: Bridge, job_id: str, after: str, error: JobNotFound) -> list[OutputChunk]:
    """Give the output that the history has of a job; raises the store's error if it has none."""
    return _ask(bridge, lambda past: past.past_pieces(job_id, after), error)


def _ask(bridge: Bridge, past: Callable[[Catalog], _Answer], error: JobNotFound) -> _Answer:
    if not bridge.loaded.workspace.history_db.exists():
        raise error
    # SQLite is loaded only here: whoever types waits for it.
    from ingress.catalog import Catalog

    with Catalog(bridge) as catalog:
        return past(catalog)
