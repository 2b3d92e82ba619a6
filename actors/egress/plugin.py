"""Destinations of installed packages: entry point group ``cmd_bridge.destinations``.

An entry point is a function that delivers a finished job::

    def deliver(outcome: Outcome, settings: Mapping[str, Any]) -> str | None:
        ...                                 # to the place that the settings name
        return "where the result is now"

``settings`` is the table ``[destinations.NAME]`` of 3ox.toml, as it is when the result is delivered. Of its
keys the bridge uses ``plugin`` (name of the entry point; NAME when absent), ``types`` and ``when`` (as in
``[[webhook]]``); all others are the plug-in's own. Without such a table nothing is delivered.

A delivery is retried until the function returns: whatever it raises is a failure, worth another attempt,
except ``ops.errors.JobRefused``: this destination will never accept the result. It may be called again after
it has delivered, if the worker dies before that is recorded; ``outcome.delivery_id`` is then the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from actors.egress.outcome import Delivered, Outcome
from ops.errors import JobFailed, JobRefused
from ops.plugins import load_plugins, require_callable, why_broken
from ops.settings.load import LoadedSettings
from ops.settings.results import destination_route


class DestinationPlugin(Protocol):
    """What an entry point is."""

    def __call__(self, outcome: Outcome, settings: Mapping[str, Any], /) -> str | None:
        """Deliver a finished job; returns where the result is now, for ``3ox jobs ID``."""


def destination_plugins() -> dict[str, DestinationPlugin]:
    """Return the destinations of installed packages by name."""
    return {name: plugin.use for name, plugin in load_plugins("destinations", _check).items()}


def _check(name: str, found: Any) -> DestinationPlugin:
    del name
    require_callable(found, "outcome", "settings")
    checked: DestinationPlugin = found
    return checked


def deliver(outcome: Outcome, loaded: LoadedSettings, which: str) -> Delivered:
    """Pass the job to the destination of a package.

    Args:
        outcome: The finished job.
        loaded: Settings.
        which: NAME in ``[destinations.NAME]``.

    Raises:
        JobFailed: It was not accepted now; worth a retry.
        JobRefused: It is not configured, or will never accept the job.
    """
    table = loaded.settings.destinations.get(which)
    if table is None:
        raise JobRefused(
            f"The destination {which!r} is not in 3ox.toml.",
            remedy=f"Add it again as [destinations.{which}].",
        )
    plugin = destination_route(table).plugin or which
    found = destination_plugins().get(plugin)
    if found is None:
        why = why_broken("destinations", plugin)
        raise JobRefused(
            f"Unknown plug-in {plugin!r} for the destination {which!r}.{why}",
            remedy="Install its package where the workers run, and restart them.",
        )
    try:
        place = found(outcome, table)
    except JobFailed:
        raise
    except Exception as error:
        raise JobFailed(f"The destination {which!r} failed: {type(error).__name__}: {error}") from error
    return Delivered(sink=f"plugin:{which}", place="" if place is None else str(place))
