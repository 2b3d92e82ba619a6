"""Sees from outside what happens: every end that the store tells of, and when the store does not answer."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from middleware.job.keys import Keys
from middleware.job.states import FINAL, State
from ops.errors import StoreError, StoreUnreachable
from ops.settings.load import LoadedSettings
from ops.store.client import Store

_PAUSE_S = 0.03
_PING_TIMEOUT_S = 0.1


class Witness:
    """Follows the event stream, and notes each end of a job in a file outside the store.

    Args:
        loaded: Says where the store is.
        file: Gets a line for each end: job, state, id of the event.

    Attributes:
        ends: Job id -> ids of the events that told of an end of it.
        times_ms: When, in ms since 1970, in order.
    """

    def __init__(self, loaded: LoadedSettings, file: Path) -> None:
        self._store = Store.open(loaded, timeout_s=2.0)
        self._events = Keys(loaded.settings.key_prefix).events
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._stopping = threading.Event()
        self._last: bytes = b"0-0"
        self.ends: dict[str, list[str]] = {}
        self.times_ms: list[int] = []
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read what there is, then end."""
        self._stopping.set()
        self._thread.join(10.0)
        self._store.close()
        os.close(self._fd)

    def _run(self) -> None:
        while True:
            final_round = self._stopping.is_set()
            try:
                read = self._store.call("XREAD", "COUNT", 2000, "STREAMS", self._events, self._last)
            except (StoreUnreachable, StoreError):
                read = None
            entries = [] if read is None else read[0][1]
            for event_id, fields in entries:
                self._take(event_id, dict(zip(fields[::2], fields[1::2], strict=True)))
            if final_round and not entries:
                return
            if not entries:
                self._stopping.wait(_PAUSE_S)

    def _take(self, event_id: bytes, fields: dict[bytes, bytes]) -> None:
        self._last = event_id
        status = fields[b"status"].decode()
        if State(status) not in FINAL:
            return
        job_id, number = fields[b"job"].decode(), event_id.decode()
        os.write(self._fd, f"{job_id} {status} {number}\n".encode())
        self.ends.setdefault(job_id, []).append(number)
        self.times_ms.append(int(number.partition("-")[0]))


class Pulse:
    """Asks the store all the time whether it is there.

    Args:
        loaded: Says where the store is.

    Attributes:
        outages: From the last answer before to the first one after, in seconds since 1970.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._store = Store.open(loaded, timeout_s=_PING_TIMEOUT_S)
        self._stopping = threading.Event()
        self.outages: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(5.0)
        self._store.close()

    def _run(self) -> None:
        well_s, away = time.time(), False
        while not self._stopping.wait(_PAUSE_S):
            try:
                self._store.call("PING")
            except (StoreUnreachable, StoreError):
                away = True
                continue
            now_s = time.time()
            if away:
                self.outages.append((well_s, now_s))
            well_s, away = now_s, False
