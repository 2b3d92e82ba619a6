"""Carries progress and output of running jobs to the store, live but in bundles."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.context import StreamName
from ops.backoff import Backoff
from ops.errors import BridgeError, StoreUnreachable
from ops.store.resp import Argument, well_formed
from ops.threads import start_duty

#: Output is sent when this much has come together, or after the interval.
_BUNDLE_BYTES = 16_384
#: A single entry of the output stream is at most this long.
_PIECE_CHARS = 8_192

logger = logging.getLogger(__name__)


class StoreSink:
    """Takes the reports of one delivery and hands them on, fenced: those of a superseded one are dropped.

    Args:
        broker: To report through.
        message: The delivery.
        progress: Told when there is something to hand on.
        output_max_bytes: More output than this is dropped, and said so once.
    """

    def __init__(
        self,
        broker: BridgeBroker,
        message: JobMessage,
        progress: Progress,
        output_max_bytes: int,
    ) -> None:
        self._broker = broker
        self._message = message
        self._progress = progress
        self._left_bytes = output_max_bytes
        self._limit_bytes = output_max_bytes
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._percent = ""
        self._said = ""
        self._pieces: list[tuple[str, str]] = []
        self._held_bytes = 0
        self._bundles = 0
        self._unsent: tuple[Argument, ...] | None = None

    def progress(self, percent: float, message: str) -> None:
        """Note the last progress; those in between are not sent."""
        with self._lock:
            self._percent = f"{percent:g}"
            self._said = well_formed(message[:500])
        self._progress.wants(self)

    def output(self, text: str, stream: StreamName) -> None:
        """Note a piece of output."""
        text = well_formed(text)
        size_bytes = len(text.encode())
        with self._lock:
            if self._left_bytes <= 0:
                return
            self._left_bytes -= size_bytes
            for start in range(0, len(text), _PIECE_CHARS):
                self._append(stream, text[start : start + _PIECE_CHARS])
            if self._left_bytes <= 0:
                self._append("err", f"\n[output is cut here: more than {self._limit_bytes} bytes]\n")
            self._held_bytes += size_bytes
            full = self._held_bytes >= _BUNDLE_BYTES
        self._progress.wants(self, at_once=full)

    def _append(self, stream: str, text: str) -> None:
        if (
            self._pieces
            and self._pieces[-1][0] == stream
            and len(self._pieces[-1][1]) + len(text) <= _PIECE_CHARS
        ):
            self._pieces[-1] = (stream, self._pieces[-1][1] + text)
        else:
            self._pieces.append((stream, text))

    def flush(self) -> None:
        """Send what is noted.

        Raises:
            StoreUnreachable: It stays noted.
        """
        with self._sending:
            # What got no answer goes again as it was, so that the store can tell that it knows it.
            self._send()
            self._bundle()
            self._send()

    def _send(self) -> None:
        if self._unsent is None:
            return
        try:
            self._broker.scripts.run_many([self._unsent])
        except StoreUnreachable:
            raise
        except BaseException:
            self._unsent = None
            raise
        self._unsent = None

    def _bundle(self) -> None:
        with self._lock:
            percent, said, pieces = self._percent, self._said, self._pieces
            self._percent, self._pieces, self._held_bytes = "", [], 0
        if percent == "" and not pieces:
            return
        self._bundles += 1
        self._unsent = self._broker.scripts.report_command(
            self._broker.worker_id,
            self._message.job.job_id,
            self._message.delivery,
            percent=percent,
            message=said,
            output=pieces,
            bundle=self._bundles,
        )


class Progress(dramatiq.Middleware):
    """Sends what running jobs report; one thread for all of them.

    The first report of a quiet job goes out at once, later ones at most once in ``interval_s``.

    Args:
        interval_s: Between two reports of one process, in seconds.
        output_max_bytes: Of one attempt.
    """

    def __init__(self, *, interval_s: float, output_max_bytes: int) -> None:
        self._interval_s = interval_s
        self._output_max_bytes = output_max_bytes
        self._changed = threading.Condition()
        self._waiting: dict[int, StoreSink] = {}
        self._at_once = False
        self._stopping = False
        self._broker: BridgeBroker | None = None

    def sink(self, message: JobMessage) -> StoreSink:
        """Make the sink of one delivery.

        Raises:
            LookupError: No worker has booted in this process.
        """
        if self._broker is None:
            raise LookupError("no worker has booted in this process")
        return StoreSink(self._broker, message, self, self._output_max_bytes)

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start the thread."""
        if isinstance(broker, BridgeBroker):
            self._broker = broker
            start_duty("progress", self._run, broker, ended=lambda: self._stopping)

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """End the thread; every job's own end has flushed its sink."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def wants(self, sink: StoreSink, *, at_once: bool = False) -> None:
        """Note that this sink has something to hand on."""
        with self._changed:
            first = not self._waiting
            self._waiting[id(sink)] = sink
            self._at_once = self._at_once or at_once
            if first or at_once:
                self._changed.notify()

    def _run(self, broker: BridgeBroker) -> None:
        last_s, backoff = 0.0, Backoff()
        while True:
            with self._changed:
                while not self._stopping and not self._waiting:
                    self._changed.wait()
                pause_s = last_s + self._interval_s - time.monotonic()
                if pause_s > 0 and not self._at_once and not self._stopping:
                    self._changed.wait(pause_s)
                if self._stopping:
                    return
                sinks, self._waiting, self._at_once = list(self._waiting.values()), {}, False
            last_s = time.monotonic()
            for sink in sinks:
                try:
                    sink.flush()
                    backoff.reset()
                except BridgeError as error:
                    broker.outage.begin(error)
                    backoff.wait(broker.stopping)
                    self.wants(sink)
