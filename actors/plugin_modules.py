"""Modules that declare actors: entry point group ``cmd_bridge.actors``, and ``actors = [...]`` in 3ox.toml.

An entry point is a module; importing it declares its actors on the bridge's broker::

    import dramatiq
    from actors import broker

    @dramatiq.actor(queue_name="media")
    def thumbnail(path: str, size: int = 128) -> dict: ...

A module of 3ox.toml needs no package: the directory of 3ox.toml is on Python's path, after everything that is
installed. A module there must not have the name of an installed one.

A module that cannot be imported, or declares no actor on this broker, is skipped and its actors are removed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import dramatiq

import cmd_bridge
from middleware.broker.broker import BridgeBroker
from ops.plugins import PluginError, add_broken, load_plugins
from ops.settings.load import LoadedSettings


def load_actor_modules(broker: BridgeBroker, loaded: LoadedSettings) -> list[str]:
    """Import the modules of packages and of 3ox.toml that declare actors, and return their names.

    Args:
        broker: The bridge's broker, which ``from actors import broker`` already finds.
        loaded: ``actors`` of the settings, and the workspace.
    """
    plugins = load_plugins("actors", _check, load=lambda point: _declaring(broker, point.load))
    names = [plugin.use.__name__ for plugin in plugins.values()]
    if loaded.settings.actors:
        folder = str(loaded.workspace.home)
        if folder not in sys.path:
            sys.path.append(folder)
    for name in loaded.settings.actors:
        try:
            _declaring(broker, partial(_import, name))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a user's module raises)
            add_broken("actors", name, "3ox.toml", error)
        else:
            names.append(name)
    return names


def _check(name: str, found: ModuleType) -> ModuleType:
    del name
    return found


def _import(name: str) -> ModuleType:
    if name.partition(".")[0] in cmd_bridge.OWN:
        raise PluginError("the bridge has a package of this name; rename the module")
    return import_module(name)


def _declaring(broker: BridgeBroker, load: Callable[[], Any]) -> ModuleType:
    """Import a module, and check that it declares actors on this broker.

    Raises:
        PluginError: It declares none, or replaces the broker.
    """
    before = set(broker.actors)
    try:
        module = load()
        _require_actors(module, broker, declared=set(broker.actors) != before)
    except BaseException:
        for name in set(broker.actors) - before:
            broker.undeclare_actor(name)
        dramatiq.set_broker(broker)
        raise
    broker.plugin_actors |= set(broker.actors) - before
    checked: ModuleType = module
    return checked


def _require_actors(module: Any, broker: BridgeBroker, *, declared: bool) -> None:
    if not isinstance(module, ModuleType):
        raise PluginError(f"{module!r} is not a module")
    if dramatiq.get_broker() is not broker:
        raise PluginError("it sets another broker; use 'from actors import broker' instead")
    # It may be imported already, or, as the module of `dramatiq my_jobs`, which imports us, partly.
    spec, own = module.__spec__, (actor.fn.__module__ for actor in broker.actors.values())
    if not declared and module.__name__ not in own and not getattr(spec, "_initializing", False):
        raise PluginError("it declares no actor on the bridge's broker; use 'from actors import broker'")


class PoolArguments(NamedTuple):
    """What the command line of a worker, ``dramatiq MODULE ... [--queues QUEUE ...]``, says of its pool.

    Attributes:
        is_main: Whether it names ``actors``: such a pool carries the built-in types and those of plug-ins;
            one of ``dramatiq my_jobs`` only its own.
        queues: The queues that it consumes; empty for those of all its actors.
    """

    is_main: bool
    queues: frozenset[str]


def pool_arguments() -> PoolArguments:
    """Return what the command line of this worker says."""
    from dramatiq.cli import make_argument_parser

    arguments = make_argument_parser().parse_args(sys.argv[1:])  # type: ignore[no-untyped-call]
    modules = {name.partition(":")[0] for name in (arguments.broker, *arguments.modules)}
    return PoolArguments("actors" in modules, frozenset(arguments.queues or ()))
