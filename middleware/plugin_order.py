"""Middleware of installed packages: entry point group ``cmd_bridge.middleware``.

An entry point is a class without constructor arguments, or an instance, derived from ``dramatiq.Middleware``
(or from ``middleware.job_middleware.JobMiddleware``, whose hooks are given jobs). It runs in every worker.

Its place in the order is the innermost, unless it has an attribute ``before`` or ``after`` with the name of a
class of ours in ``actors/registry.py``::

    class Traced(JobMiddleware):
        before = "Retries"      # outside of Retries: job_ended sees what it has decided

Several at the same place are in the order of their names, the first one outermost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dramatiq import Broker, Middleware

from ops.plugins import PluginError, add_broken, load_plugins


class PlacedMiddleware(NamedTuple):
    """A middleware and its place.

    Attributes:
        name: Name of the plug-in.
        distribution: The package that offers it.
        middleware: The middleware.
        before: Name of the class that it is placed outside of; empty for none.
        after: Name of the class that it is placed inside of; empty for none.
    """

    name: str
    distribution: str
    middleware: Middleware
    before: str = ""
    after: str = ""


def plugin_middleware() -> list[PlacedMiddleware]:
    """Return the middleware of installed packages, by name."""
    return [
        PlacedMiddleware(plugin.name, plugin.distribution, *plugin.use)
        for plugin in load_plugins("middleware", _check).values()
    ]


def _check(name: str, found: Any) -> tuple[Middleware, str, str]:
    del name
    middleware = found() if isinstance(found, type) else found
    if not isinstance(middleware, Middleware):
        raise PluginError(f"{found!r} is not a dramatiq.Middleware")
    before, after = getattr(middleware, "before", ""), getattr(middleware, "after", "")
    if not isinstance(before, str) or not isinstance(after, str):
        raise PluginError("its attributes before and after must be names of classes")
    if before and after:
        raise PluginError(f"it has both before = {before!r} and after = {after!r}: give one of them")
    return middleware, before, after


def add_plugin_middleware(broker: Broker) -> None:
    """Add the middleware of installed packages; one whose place does not exist is skipped.

    Args:
        broker: With all our own middleware.
    """
    places = {type(item).__name__: type(item) for item in broker.middleware}
    found = plugin_middleware()
    # Each is put right inside of ``after``: the first one outermost when it is put there last.
    for item in [
        *(item for item in found if not item.after),
        *(item for item in reversed(found) if item.after),
    ]:
        wanted = item.before if item.before else item.after
        if wanted and wanted not in places:
            which = "before" if item.before else "after"
            error = PluginError(f"{which} = {wanted!r} must be one of: {', '.join(places)}")
            add_broken("middleware", item.name, item.distribution, error)
        elif item.before:
            broker.add_middleware(item.middleware, before=places[wanted])
        elif item.after:
            broker.add_middleware(item.middleware, after=places[wanted])
        else:
            broker.add_middleware(item.middleware)
