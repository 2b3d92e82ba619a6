"""The part of a bridge that submits jobs; all that ``3ox run`` loads of the bridge."""

from __future__ import annotations

from middleware.broker.admission import make_admission, make_scripts
from middleware.job.records import Receipt
from middleware.job.schema import Job
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store


class Submitter:
    """A connection to one bridge that submits jobs; ``ingress.core.bridge.Bridge`` also reads them.

    Args:
        loaded: The bridge's settings.
        timeout_s: Limit for one answer of the store, in seconds; by default the setting's value.
        store: The store; by default the one the settings name.

    Attributes:
        loaded: The bridge's settings.
        store: The store.
        scripts: The store's functions, one for each transition of a job.
        admission: Validates and admits jobs.

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

    def submit(self, job: Job, *, delay_s: float | None = None) -> Receipt:
        """Enqueue a job and return its receipt; see ``ingress.dispatch.dispatch``."""
        return self.admission.submit([job], delay_ms=0 if delay_s is None else round(delay_s * 1000))[0]


class Connected:
    """What this process is connected to by default; ``ingress.core.bridge.connect`` sets it."""

    submitter: Submitter | None = None


def current_submitter() -> Submitter:
    """Return what this process is connected to; connect with the default settings if it is to nothing."""
    if Connected.submitter is None:
        Connected.submitter = Submitter(load_settings())
    return Connected.submitter
