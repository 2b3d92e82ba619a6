"""Base of the loops that only the leading scheduler runs, each in a thread of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ingress.core.daemon import Daemon
from middleware.broker.leadership import Leadership, Term
from middleware.broker.outage import Outage
from ops.errors import BridgeError, LeadershipLost
from ops.logs import get_logger
from ops.threads import start_duty

#: Pause while another scheduler leads, and after an error.
PAUSE_S = 0.5

log = get_logger(__name__)


class LeaderLoop(ABC):
    """Calls ``work`` again and again while this process leads.

    An error ends the round: ``close`` is called and the loop pauses. Errors listed in ``faults`` need an
    operator; the first of a series is logged as ``fault_event``. Any other error counts as an outage of the
    store.

    Args:
        daemon: The process that the loop runs in.
        leadership: Knows whether this process leads.
    """

    #: Name of the thread.
    name: ClassVar[str]
    faults: ClassVar[tuple[type[BridgeError], ...]]
    fault_event: ClassVar[str]

    def __init__(self, daemon: Daemon, leadership: Leadership) -> None:
        self.daemon = daemon
        self._leadership = leadership
        self._outage = Outage()
        self._fault_logged = False

    @abstractmethod
    def work(self, term: Term) -> None:
        """Do one round and wait until the next one may have something to do.

        Args:
            term: The term under which this process leads.

        Raises:
            BridgeError: The round failed; it is repeated after a pause.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what ``work`` has opened; it may be called again, and ``work`` after it."""

    def start(self) -> None:
        """Start the loop's thread; it ends with the daemon."""
        start_duty(self.name, self.run, ended=self.daemon.stopping.is_set)

    def run(self) -> None:
        """Work while this process leads, until the daemon stops."""
        stopping = self.daemon.stopping
        try:
            while not stopping.is_set():
                term = self._leadership.term
                if term is None:
                    self.close()
                    stopping.wait(PAUSE_S)
                    continue
                try:
                    self.work(term)
                except BridgeError as error:
                    self.close()
                    self._report(error)
                    stopping.wait(PAUSE_S)
                else:
                    self._outage.end()
                    self._fault_logged = False
        finally:
            self.close()

    def _report(self, error: BridgeError) -> None:
        if isinstance(error, LeadershipLost):
            log.warning("clock.fenced", task=self.name, reason=str(error))
        elif not isinstance(error, self.faults):
            self._outage.begin(error)
        elif not self._fault_logged:
            self._fault_logged = True
            log.error(self.fault_event, reason=str(error))
