"""The connection to one bridge: its store, what admits jobs, what reads them, what follows them."""

from __future__ import annotations

from middleware.broker.admission import make_admission, make_scripts
from middleware.job.follow import Follower
from middleware.job.reader import Reader
from middleware.job.records import Receipt
from middleware.job.schema import Job
from ops.settings.load import LoadedSettings, load_settings
from ops.spool import Spool
from ops.store.client import Store


class Bridge:
    """A connection to one bridge.

    What can be done to a job is in ``ingress.core.control``, how one is found in ``ingress.core.lookup``.

    Args:
        loaded: The bridge's settings.
        timeout_s: Limit for one answer of the store, in seconds; by default the setting's value.
        store: The store; by default the one the settings name.

    Attributes:
        loaded: The bridge's settings.
        store: The store.
        scripts: The store's functions, one for each transition of a job.
        admission: Validates and admits jobs.
        reader: Reads jobs, receipts and lists.
        follower: Follows events and output.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """

    def __init__(
        self, loaded: LoadedSettings, *, timeout_s: float | None = None, store: Store | None = None
    ) -> None:
        self.loaded = loaded
        self.store = Store.open(loaded, timeout_s=timeout_s) if store is None else store
        self.scripts = make_scripts(self.store, loaded.settings)
        self.admission = make_admission(self.scripts, loaded.settings)
        self.reader = Reader(self.store, loaded.settings.key_prefix)
        self.follower = Follower(self.store, self.reader)

    def spooled(self) -> int:
        """Count the jobs that the daemons of this host keep on disk until the store takes them."""
        return Spool(self.loaded.workspace.spool_dir, max_bytes=self.loaded.settings.spool_max_bytes).count()

    def submit(self, job: Job, *, delay_s: float | None = None) -> Receipt:
        """Enqueue a job and return its receipt; see ``ingress.dispatch.dispatch``."""
        return self.admission.submit([job], delay_ms=0 if delay_s is None else round(delay_s * 1000))[0]


class _Default:
    """The bridge of this process."""

    bridge: Bridge | None = None


def connect(loaded: LoadedSettings | None = None, *, timeout_s: float | None = None) -> Bridge:
    """Connect this process to a bridge: the functions of ``ingress.dispatch`` use it from then on.

    Args:
        loaded: The bridge's settings; by default those of 3ox.toml and the environment.
        timeout_s: Limit for one answer of the store, in seconds.

    Raises:
        SettingsError: The settings are not valid.
    """
    _Default.bridge = Bridge(load_settings() if loaded is None else loaded, timeout_s=timeout_s)
    return _Default.bridge


def current_bridge() -> Bridge:
    """Return the bridge this process is connected to; connect with the default settings if there is none."""
    return connect() if _Default.bridge is None else _Default.bridge
