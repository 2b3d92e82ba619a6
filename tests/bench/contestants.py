"""The contestants, seen from the program that sends jobs: one face for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import dramatiq

from actors.registry import make_broker
from ingress import dispatch
from middleware.job.keys import Keys
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import BridgeError
from ops.settings.load import LoadedSettings
from ops.store.client import Store
from tests.bench.job import stock_body
from tests.bench.stock import RESULTS_VARIABLE, URL_VARIABLE, make_stock

OURS = "ours"
USER = "ours, a user's actor"
STOCK = "stock"
RESULTS = "stock + Results"
NAMES = (OURS, USER, STOCK, RESULTS)
#: Longer than any round trip that is worth a figure.
PATIENCE_S = 20.0


class Contestant(ABC):
    """A way to send the no-op job.

    Attributes:
        name: One of ``NAMES``.
        module: What its workers run.
        environ: What its workers need in their environment.
    """

    name: str
    module: str
    environ: dict[str, str]

    @abstractmethod
    def send(self, nonce: str) -> None:
        """Enqueue one job."""

    def send_many(self, nonces: Sequence[str]) -> bool:
        """Enqueue jobs as one batch; return False if there are no batches."""
        del nonces
        return False

    @abstractmethod
    def send_and_wait(self, nonce: str) -> None:
        """Enqueue one job and block until its result has come."""

    @abstractmethod
    def workers_ready(self, store: Store) -> int:
        """Count the worker processes that have asked the store for work."""

    @abstractmethod
    def unfinished(self, store: Store, sent: int) -> int:
        """Count the jobs, of all that were sent, whose end is not yet committed to the store."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class Ours(Contestant):
    """Our full path: ``dispatch``, receipts, events, results, ``wait_for``."""

    name = OURS
    module = "tests.bench.ours_worker"

    def __init__(self, loaded: LoadedSettings, url: str) -> None:
        del url
        self.environ = {"BRIDGE_HOME": str(loaded.workspace.home)}
        self._bridge = dispatch.connect(loaded)
        self._keys = Keys(loaded.settings.key_prefix)

    def send(self, nonce: str) -> None:
        """Call ``dispatch``."""
        dispatch.dispatch("heartbeat", {"nonce": nonce})

    def send_many(self, nonces: Sequence[str]) -> bool:
        """Make the jobs and call ``dispatch_many``."""
        dispatch.dispatch_many(make_job("heartbeat", {"nonce": nonce}) for nonce in nonces)
        return True

    def send_and_wait(self, nonce: str) -> None:
        """Call ``dispatch``, then ``wait_for``."""
        receipt = dispatch.dispatch("heartbeat", {"nonce": nonce})
        record = dispatch.wait_for(receipt.job_id, timeout_s=PATIENCE_S)
        if record.status != State.COMPLETED:
            raise BridgeError(f"the job {record.job_id} is {record.status}: {record.reason}")

    def workers_ready(self, store: Store) -> int:
        """Count the leases."""
        return int(store.call("ZCARD", self._keys.workers))

    def unfinished(self, store: Store, sent: int) -> int:
        """Subtract those in the set of the completed."""
        return sent - int(store.call("ZCARD", self._keys.state(State.COMPLETED)))

    def close(self) -> None:
        """Close the store."""
        self._bridge.store.close()


class UserActor(Ours):
    """Our full path for an actor of a user: ``actor.send``. Its body is the one that stock Dramatiq runs."""

    name = USER
    module = "tests.bench.user_worker"

    def __init__(self, loaded: LoadedSettings, url: str) -> None:
        super().__init__(loaded, url)
        self._actor = dramatiq.actor(actor_name="noop", broker=make_broker(loaded))(stock_body)

    def send(self, nonce: str) -> None:
        """Call ``actor.send``."""
        self._actor.send(nonce)

    def send_many(self, nonces: Sequence[str]) -> bool:
        """Return False: Dramatiq has no batches."""
        del nonces
        return False

    def close(self) -> None:
        """Close both connections."""
        super().close()
        self._actor.broker.close()


class Stock(Contestant):
    """Stock Dramatiq: ``actor.send``, ``message.get_result``."""

    module = "tests.bench.stock_worker"

    def __init__(self, loaded: LoadedSettings, url: str, *, results: bool) -> None:
        del loaded
        self.name = RESULTS if results else STOCK
        self.environ = {URL_VARIABLE: url, RESULTS_VARIABLE: str(int(results))}
        self._broker, self._actor, self._backend = make_stock(url, results=results)

    def send(self, nonce: str) -> None:
        """Call ``actor.send``."""
        self._actor.send(nonce)

    def send_and_wait(self, nonce: str) -> None:
        """Call ``actor.send``, then ``get_result``."""
        message = self._actor.send(nonce)
        message.get_result(backend=self._backend, block=True, timeout=int(PATIENCE_S * 1000))

    def workers_ready(self, store: Store) -> int:
        """Count the heartbeats."""
        return int(store.call("ZCARD", "dramatiq:__heartbeats__"))

    def unfinished(self, store: Store, sent: int) -> int:
        """Count the messages that are kept until they are acknowledged, after the result was stored."""
        del sent
        return int(store.call("HLEN", "dramatiq:default.msgs"))

    def close(self) -> None:
        """Close both clients."""
        self._broker.close()
        self._broker.client.close()
        if self._backend is not None:
            self._backend.client.close()


def make_contestant(name: str, loaded: LoadedSettings, url: str) -> Contestant:
    """Make the contestant of this name.

    Args:
        name: One of ``NAMES``.
        loaded: Settings of the workspace with the store.
        url: Of that store.
    """
    if name == OURS:
        return Ours(loaded, url)
    if name == USER:
        return UserActor(loaded, url)
    return Stock(loaded, url, results=name == RESULTS)
