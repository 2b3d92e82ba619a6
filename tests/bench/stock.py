"""Stock Dramatiq as its manual shows it: RedisBroker, default middleware, Results if wanted."""

from __future__ import annotations

from typing import Any, NamedTuple

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.bench.job import stock_body

URL_VARIABLE = "BENCH_STORE_URL"
RESULTS_VARIABLE = "BENCH_RESULTS"


class StockSide(NamedTuple):
    """Stock Dramatiq: its broker, its one actor, and where its results are."""

    broker: RedisBroker
    actor: dramatiq.Actor[[str], dict[str, object]]
    backend: RedisBackend | None


def make_stock(url: str, *, results: bool) -> StockSide:
    """Make the broker and its one actor.

    Args:
        url: Of the store.
        results: Whether results are kept.
    """
    broker: RedisBroker = _untyped(RedisBroker)(url=url)
    backend = _untyped(RedisBackend)(url=url) if results else None
    if backend is not None:
        broker.add_middleware(_untyped(Results)(backend=backend))
    options: dict[str, Any] = {"store_results": True} if results else {}
    actor = dramatiq.actor(actor_name="noop", broker=broker, **options)(stock_body)
    return StockSide(broker, actor, backend)


def _untyped(maker: Any) -> Any:
    """Hand through a class that Dramatiq has no types for."""
    return maker
