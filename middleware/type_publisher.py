"""Publish the job types of a worker's own actors, so that every interface knows them."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from middleware.broker.broker import BridgeBroker
from middleware.broker.type_directory import PublishedType
from middleware.job.types import JOB_TYPES
from middleware.periodic import PeriodicMiddleware
from ops.errors import BridgeError

#: How often types that no worker publishes any more are looked for, in seconds.
_PURGE_S = 3600.0
#: Largest description of a type, in bytes.
_DESCRIPTION_MAX_BYTES = 65_536

logger = logging.getLogger(__name__)


class TypePublisher(PeriodicMiddleware):
    """Writes name, queue, schema and defaults of each actor that is not built in into the store.

    It does so at the start of the worker and every ``interval_s`` seconds after that: a type that no worker
    has published for 30 days is forgotten. Jobs that were held since no worker carried their type are queued.

    Args:
        interval_s: Interval between two publications, in seconds.
    """

    def __init__(self, *, interval_s: float) -> None:
        super().__init__(interval_s=interval_s)
        self._rows: list[tuple[str, str, bytes]] = []
        self._names: list[str] = []
        self._publishes = False
        self._purged_s = float("-inf")
        self._refused: set[str] = set()

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Publish, and start the thread."""
        consumed = set(worker.consumers)
        self._rows = [
            (name, row.queue, data)
            for row in broker.types.declared()
            for name, data in [(row.name, msgspec.json.encode(PublishedType.of(row)))]
            if row.queue in consumed and self._fits(name, data)
        ]
        # Built-in types are not published; a job of one may have been held by a worker of an earlier version.
        self._rows += [
            (row.name, row.queue, b"")
            for row in JOB_TYPES.declared()
            if row.queue in consumed and row.name in broker.actors and not row.internal
        ]
        self._names = [name for name, _, _ in self._rows]
        self._publishes = any(data for _, _, data in self._rows)
        try:
            self.run_once(broker)
        except BridgeError as error:
            broker.outage.begin(error)
        super().worker_started(broker, worker)

    def run_once(self, broker: BridgeBroker) -> None:
        """Publish all types; a pool without actors of a user only looks for held jobs, but once an hour."""
        now_s = time.monotonic()
        if not self._rows or not (
            self._publishes or now_s - self._purged_s >= _PURGE_S or broker.scripts.are_held(self._names)
        ):
            return
        self._purged_s = now_s
        refused = set(broker.scripts.publish(self._rows))
        for name in refused - self._refused:
            logger.warning("type.refused: %s: the store has as many job types as it may", name)
        self._refused = refused

    @staticmethod
    def _fits(name: str, data: bytes) -> bool:
        fits = len(data) <= _DESCRIPTION_MAX_BYTES
        if not fits:
            logger.warning("type.too_large: %s: its schema has %d bytes", name, len(data))
        return fits
