"""The connection to one bridge: its store, what admits jobs, what reads them, what follows them."""

from __future__ import annotations

from ingress.core.submitter import Connected, Submitter
from middleware.broker.approvals import Approvals
from middleware.job.follow import Follower
from middleware.job.reader import Reader
from ops.settings.load import LoadedSettings, load_settings
from ops.spool import Spool
from ops.store.client import Store


class Bridge(Submitter):
    """A connection to one bridge.

    What can be done to a job is in ``ingress.core.control``, how one is found in ``ingress.core.lookup``.

    Args:
        loaded: The bridge's settings.
        timeout_s: Limit for one answer of the store, in seconds; by default the setting's value.
        store: The store; by default the one the settings name.

    Attributes:
        loaded, store, scripts, admission: See ``Submitter``.
        approvals: Decides on jobs that wait for approval.
        reader: Reads jobs, receipts and lists.
        follower: Follows events and output.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """

    def __init__(
        self, loaded: LoadedSettings, *, timeout_s: float | None = None, store: Store | None = None
    ) -> None:
        super().__init__(loaded, timeout_s=timeout_s, store=store)
        self.approvals = Approvals(self.scripts, ttl_s=loaded.settings.approval_ttl_s)
        self.reader = Reader(self.store, loaded.settings.key_prefix)
        self.follower = Follower(self.store, self.reader)

    def spooled(self) -> int:
        """Count the jobs that the daemons of this host keep on disk until the store takes them."""
        return Spool(self.loaded.workspace.spool_dir, max_bytes=self.loaded.settings.spool_max_bytes).count()


def connect(loaded: LoadedSettings | None = None, *, timeout_s: float | None = None) -> Bridge:
    """Connect this process to a bridge: the functions of ``ingress.dispatch`` use it from then on.

    Args:
        loaded: The bridge's settings; by default those of 3ox.toml and the environment.
        timeout_s: Limit for one answer of the store, in seconds.

    Raises:
        SettingsError: The settings are not valid.
    """
    bridge = Connected.submitter = Bridge(load_settings() if loaded is None else loaded, timeout_s=timeout_s)
    return bridge


def current_bridge() -> Bridge:
    """Return the bridge this process is connected to; connect with the default settings if there is none."""
    connected = Connected.submitter
    return connected if isinstance(connected, Bridge) else connect()
