"""Send progress and output of running jobs to the store, live but in bundles."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.job.records import StreamName
from middleware.job_middleware import JobMiddleware
from ops.backoff import Backoff
from ops.errors import BridgeError, StoreUnreachable
from ops.store.resp import Argument, well_formed
from ops.threads import start_duty

#: Output is sent when it has reached this size, or after the interval.
_BUNDLE_BYTES = 16_384
#: Maximum length of one entry of the output stream.
_PIECE_CHARS = 8_192
_MESSAGE_MAX_CHARS = 500

logger = logging.getLogger(__name__)


class StoreReporter:
    """Buffers the reports of one delivery and sends them, fenced: those of a superseded delivery are dropped.

    Args:
        broker: Sends the reports.
        message: The delivery.
        progress: Notified when there is something to send.
        output_max_bytes: Output beyond this is dropped, which is noted in the output once.
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
        self._text = ""
        self._pieces: list[tuple[str, str]] = []
        self._buffered_bytes = 0
        self._bundles = 0
        self._unsent: tuple[Argument, ...] | None = None
        self._is_used = False

    def progress(self, percent: float, message: str) -> None:
        """Note the latest progress; earlier values that were not sent yet are dropped."""
        self._is_used = True
        with self._lock:
            self._percent = f"{percent:g}"
            self._text = well_formed(message[:_MESSAGE_MAX_CHARS])
        self._progress.request_flush(self)

    def output(self, text: str, stream: StreamName) -> None:
        """Buffer a piece of output."""
        text = well_formed(text)
        size_bytes = len(text.encode())
        self._is_used = True
        with self._lock:
            if self._left_bytes <= 0:
                return
            self._left_bytes -= size_bytes
            for start in range(0, len(text), _PIECE_CHARS):
                self._append(stream, text[start : start + _PIECE_CHARS])
            if self._left_bytes <= 0:
                self._append("err", f"\n[output is cut here: more than {self._limit_bytes} bytes]\n")
            self._buffered_bytes += size_bytes
            full = self._buffered_bytes >= _BUNDLE_BYTES
        self._progress.request_flush(self, at_once=full)

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
        """Send what is buffered.

        Raises:
            StoreUnreachable: It stays buffered.
        """
        if not self._is_used:
            return  # most short jobs report nothing
        with self._sending:
            # A bundle without an answer is sent again unchanged, so that the store recognizes a repetition.
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
            percent, text, pieces = self._percent, self._text, self._pieces
            self._percent, self._pieces, self._buffered_bytes = "", [], 0
        if percent == "" and not pieces:
            return
        self._bundles += 1
        self._unsent = self._broker.scripts.report_command(
            self._broker.worker_id,
            self._message.job.job_id,
            self._message.delivery,
            percent=percent,
            message=text,
            output=pieces,
            bundle=self._bundles,
        )


class Progress(JobMiddleware):
    """Sends what running jobs report; one thread for all of them.

    The first report of a quiet job is sent at once, later ones at most once per interval.

    Args:
        interval_s: Minimum interval between two reports of one process.
        output_max_bytes: Maximum output of one attempt.
    """

    def __init__(self, *, interval_s: float, output_max_bytes: int) -> None:
        self._interval_s = interval_s
        self._output_max_bytes = output_max_bytes
        self._changed = threading.Condition()
        self._waiting: dict[int, StoreReporter] = {}
        self._at_once = False
        self._stopping = False
        self._broker: BridgeBroker | None = None

    def reporter(self, message: JobMessage) -> StoreReporter:
        """Return a new reporter for one delivery.

        Raises:
            LookupError: No worker has booted in this process.
        """
        if self._broker is None:
            raise LookupError("no worker has booted in this process")
        return StoreReporter(self._broker, message, self, self._output_max_bytes)

    def worker_starting(self, broker: BridgeBroker, worker: Any) -> None:
        """Start the thread."""
        self._broker = broker
        start_duty("progress", self._run, broker, ended=lambda: self._stopping)

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Stop the thread; the end of every job has flushed its reporter."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def request_flush(self, reporter: StoreReporter, *, at_once: bool = False) -> None:
        """Have a reporter flushed, after the interval or at once."""
        with self._changed:
            first = not self._waiting
            self._waiting[id(reporter)] = reporter
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
                reporters, self._waiting, self._at_once = list(self._waiting.values()), {}, False
            last_s = time.monotonic()
            for reporter in reporters:
                try:
                    reporter.flush()
                    backoff.reset()
                except BridgeError as error:
                    broker.outage.begin(error)
                    backoff.wait(broker.stopping)
                    self.request_flush(reporter)
