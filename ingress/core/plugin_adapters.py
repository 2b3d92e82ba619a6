"""Ingress adapters of installed packages: entry point group ``cmd_bridge.ingress``.

An entry point is a function ``serve(daemon)``, as our own adapters have one::

    def serve(daemon: Daemon) -> None:
        ...                                       # listen
        daemon.ready()
        while not daemon.stopping.wait(1.0):
            daemon.pulse()                        # at least once per second

    daemon.acceptance.accept(make_job(...))       # submit a job, also while the store is unavailable

``3ox up`` runs it as a process of its own (``3ox ingress NAME``), restarts it when it ends or hangs, stops it
with SIGTERM, and does not wait for it to be ready. ``3ox status`` lists it under its name.
"""

from __future__ import annotations

from typing import Any, Protocol

from ingress.core.daemon import Daemon
from ops.errors import UsageProblem
from ops.plugins import PluginError, load_plugins, require_callable, why_broken

#: Names of programs of ``3ox up``.
_RESERVED = frozenset({"store", "watchdog", "station", "rest", "telegram", "clock", "shell", "mcp", "up"})


class IngressPlugin(Protocol):
    """What an entry point is."""

    def __call__(self, daemon: Daemon, /) -> None:
        """Serve until ``daemon.stopping`` is set."""


def ingress_plugins() -> dict[str, IngressPlugin]:
    """Return the adapters of installed packages by name."""
    return {name: plugin.use for name, plugin in load_plugins("ingress", _check, reserved=_RESERVED).items()}


def _check(name: str, found: Any) -> IngressPlugin:
    if name.startswith("worker-"):
        raise PluginError("names that begin with worker- are those of workers")
    require_callable(found, "daemon")
    checked: IngressPlugin = found
    return checked


def require_ingress_plugin(name: str) -> IngressPlugin:
    """Return the adapter of a package.

    Raises:
        UsageProblem: There is none of this name, or it is broken.
    """
    plugins = ingress_plugins()
    if name not in plugins:
        known = ", ".join(plugins)
        raise UsageProblem(
            f"Unknown ingress adapter {name!r}.{why_broken('ingress', name)}",
            remedy=f"Use one of: {known}." if known else "Install a package that has one.",
        )
    return plugins[name]
