"""Plug-ins: objects that installed packages offer to the bridge by entry points.

    [project.entry-points."cmd_bridge.destinations"]
    folder = "my_package.folder:deliver"

The contract of each group is documented, and checked, in one module:

    cmd_bridge.actors         a module that declares actors     actors/plugin_modules.py
    cmd_bridge.ingress        an ingress adapter                ingress/core/plugin_adapters.py
    cmd_bridge.destinations   receives results                  actors/egress/plugin.py
    cmd_bridge.providers      answers ``ask``                   actors/llm/plugin_providers.py
    cmd_bridge.middleware     runs around every attempt         middleware/plugin_order.py

A plug-in that cannot be used is skipped, with one line in the log of each process that looks for it
(``plugin.broken``), and named by ``3ox doctor``. Plug-ins are loaded in the order of their names.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from ops.logs import get_logger

T = TypeVar("T")
Group = Literal["actors", "ingress", "destinations", "providers", "middleware"]
GROUPS: tuple[Group, ...] = ("actors", "ingress", "destinations", "providers", "middleware")
#: Prefix of the names of the entry point groups.
PREFIX = "cmd_bridge."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

log = get_logger(__name__)


class PluginError(Exception):
    """An object does not follow the contract of its group; the message says how."""


class Plugin(NamedTuple):
    """A plug-in that is loaded.

    Attributes:
        name: Name of the entry point.
        distribution: Name and version of the package that offers it.
        use: The object, as ``load_plugins`` was asked to check it.
    """

    name: str
    distribution: str
    use: Any


class BrokenPlugin(NamedTuple):
    """A plug-in that is skipped.

    Attributes:
        group: Its group, such as ``actors``.
        name: Name of the entry point, or of a module that 3ox.toml names.
        distribution: Name and version of the package, or ``3ox.toml``.
        reason: Why it cannot be used.
    """

    group: Group
    name: str
    distribution: str
    reason: str


class _PluginState:
    """What this process has loaded, and what it has logged."""

    lock: ClassVar[threading.RLock] = threading.RLock()
    loaded: ClassVar[dict[Group, dict[str, Plugin]]] = {}
    broken: ClassVar[list[BrokenPlugin]] = []
    logged: ClassVar[int] = 0


@functools.cache
def find_plugins(group: Group) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group by name, without loading them."""
    found = entry_points(group=f"{PREFIX}{group}")
    return tuple(sorted(found, key=lambda point: (point.name, distribution_of(point))))


def distribution_of(point: EntryPoint) -> str:
    """Return name and version of the package that offers an entry point."""
    return "" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def load_plugins(
    group: Group,
    check: Callable[[str, Any], T],
    *,
    reserved: Collection[str] = (),
    load: Callable[[EntryPoint], Any] = EntryPoint.load,
) -> dict[str, Plugin]:
    """Load the plug-ins of a group, in the first call of this process; later calls return the same.

    Args:
        group: The group.
        check: Takes the name and the object of an entry point, checks it, and returns what the bridge uses.
        reserved: Names of the bridge's own; a plug-in of such a name is broken.
        load: Imports the object of an entry point.

    Returns:
        The plug-ins by name. The others are in ``broken_plugins``.
    """
    with _PluginState.lock:
        if group not in _PluginState.loaded:
            plugins: dict[str, Plugin] = {}
            for point in find_plugins(group):
                try:
                    _check_name(point.name, plugins, reserved)
                    use = check(point.name, load(point))
                except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a package raises)
                    add_broken(group, point.name, distribution_of(point), error)
                else:
                    plugins[point.name] = Plugin(point.name, distribution_of(point), use)
            _PluginState.loaded[group] = plugins
        return _PluginState.loaded[group]


def _check_name(name: str, plugins: dict[str, Plugin], reserved: Collection[str]) -> None:
    if _NAME.fullmatch(name) is None:
        raise PluginError("the name must be up to 64 letters, digits and . _ -")
    if name in reserved:
        raise PluginError("the bridge itself has one of this name")
    if name in plugins:
        raise PluginError(f"{plugins[name].distribution} has one of the same name")


def require_callable(found: Any, *arguments: str) -> None:
    """Check that an object can be called with these arguments.

    Args:
        found: The object.
        *arguments: The names of the arguments, which are passed by position.

    Raises:
        PluginError: It cannot.
    """
    import inspect

    name, call = getattr(found, "__qualname__", repr(found)), f"({', '.join(arguments)})"
    if not callable(found):
        raise PluginError(f"{name} must be a function {call}")
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError as error:
        raise PluginError(f"{name} must take {call}: {error}") from error


def add_broken(group: Group, name: str, distribution: str, error: BaseException) -> None:
    """Record that a plug-in is skipped.

    Args:
        group: Its group.
        name: Its name.
        distribution: The package that offers it.
        error: What its import or check raised.
    """
    text = " ".join(str(error).split())
    reason = text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"
    with _PluginState.lock:
        _PluginState.broken.append(BrokenPlugin(group, name, distribution, reason))


def loaded_plugins(group: Group) -> Sequence[Plugin]:
    """Return the plug-ins of a group that this process has loaded, by name."""
    with _PluginState.lock:
        return list(_PluginState.loaded.get(group, {}).values())


def broken_plugins(group: Group | None = None) -> Sequence[BrokenPlugin]:
    """Return the plug-ins that were skipped in this process, of one group or of all."""
    with _PluginState.lock:
        return [broken for broken in _PluginState.broken if group in (None, broken.group)]


def why_broken(group: Group, name: str) -> str:
    """Return why a plug-in was skipped, as a sentence with a space before it; empty for any other name."""
    for broken in broken_plugins(group):
        if broken.name == name:
            return f" The plug-in of {broken.distribution} cannot be used: {broken.reason}."
    return ""


def log_broken_plugins() -> None:
    """Log each plug-in that was skipped in this process, once; logging must be configured."""
    with _PluginState.lock:
        new, _PluginState.logged = _PluginState.broken[_PluginState.logged :], len(_PluginState.broken)
    for broken in new:
        log_broken(broken)


def log_broken(broken: BrokenPlugin) -> None:
    """Log that a plug-in is skipped."""
    log.warning("plugin.broken", **broken._asdict())
