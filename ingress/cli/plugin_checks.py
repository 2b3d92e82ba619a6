"""Checks of plug-ins for ``3ox doctor`` and ``3ox up``, in a process of their own.

Plug-ins are code of other people: one that hangs, prints or ends the process when it is imported does so.

    python cmd_bridge.py -m ingress.cli.plugin_checks GROUP...      prints a JSON array of CheckedPlugin
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

import msgspec

from cmd_bridge import own_argv
from ops.environment import for_child
from ops.plugins import (
    GROUPS,
    Group,
    broken_plugins,
    distribution_of,
    find_plugins,
    loaded_plugins,
)
from ops.settings.load import LoadedSettings, load_settings
from ops.settings.results import destination_route

_TIMEOUT_S = 60.0
#: What loads the plug-ins of a group; the function is left out where the import does it.
_LOADERS: dict[Group, tuple[str, str]] = {
    "actors": ("actors.main_pool", ""),
    "middleware": ("actors.main_pool", ""),
    "destinations": ("actors.egress.plugin", "destination_plugins"),
    "providers": ("actors.llm.plugin_providers", "provider_plugins"),
    "ingress": ("ingress.core.plugin_adapters", "ingress_plugins"),
}


class CheckedPlugin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plug-in, or a module of 3ox.toml that declares actors.

    Attributes:
        group: Its group.
        name: Its name.
        distribution: Name and version of its package, or ``3ox.toml``; empty if there is none.
        reason: Why it cannot be used; empty if it can.
        needed: Whether 3ox.toml names it.
    """

    group: Group
    name: str
    distribution: str = ""
    reason: str = ""
    needed: bool = False


def check_plugins(loaded: LoadedSettings, groups: Sequence[Group] = GROUPS) -> list[CheckedPlugin]:
    """Load the plug-ins of these groups in another process, and return what became of each.

    Args:
        loaded: Settings of the bridge.
        groups: The groups; without entry points, and names in 3ox.toml, no process is started.
    """
    points = [(group, point) for group in groups for point in find_plugins(group)]
    if not points and not _named_in_settings(loaded, groups):
        return []
    try:
        checked = subprocess.run(
            own_argv("-m", "ingress.cli.plugin_checks", *groups),
            env=for_child({"BRIDGE_HOME": str(loaded.workspace.home)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"loading the plug-ins took more than {_TIMEOUT_S:g} s"
    else:
        if checked.returncode == 0:
            return msgspec.json.decode(checked.stdout, type=list[CheckedPlugin])
        lines = checked.stderr.decode(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "no output")
        reason = f"loading the plug-ins ended with exit code {checked.returncode}: {said}"
    return [CheckedPlugin(group, point.name, distribution_of(point), reason) for group, point in points]


def _named_in_settings(loaded: LoadedSettings, groups: Sequence[Group]) -> dict[tuple[Group, str], str]:
    """Return the plug-ins and modules that 3ox.toml names, and where it does."""
    settings = loaded.settings
    named: dict[tuple[Group, str], str] = {("actors", name): "actors" for name in settings.actors}
    for name, table in settings.destinations.items():
        plugin = destination_route(table).plugin
        named["destinations", plugin if plugin else name] = f"[destinations.{name}]"
    for name in settings.ask.providers:
        named["providers", name] = "[ask] providers"
    for name in settings.ask.plugins:
        named["providers", name] = f"[ask.plugins.{name}]"
    return {key: where for key, where in named.items() if key[0] in groups}


def _report(loaded: LoadedSettings, groups: Sequence[Group]) -> Iterator[CheckedPlugin]:
    """Load the plug-ins in this process and yield what became of each."""
    for group in groups:
        module, function = _LOADERS[group]
        imported = import_module(module)
        if function:
            getattr(imported, function)()
    named = _named_in_settings(loaded, groups)
    for group in groups:
        seen = set()
        for plugin in loaded_plugins(group):
            seen.add(plugin.name)
            yield CheckedPlugin(group, plugin.name, plugin.distribution, needed=(group, plugin.name) in named)
        for broken in broken_plugins(group):
            # The same name twice: the first one is used.
            needed = broken.name not in seen and (group, broken.name) in named
            yield CheckedPlugin(group, broken.name, broken.distribution, broken.reason, needed)
        seen |= {broken.name for broken in broken_plugins(group)}
        if group == "providers":
            seen |= set(import_module("actors.llm.plugin_providers").OWN_PROVIDERS)
        for (which, name), where in named.items():
            if which != group or name in seen:
                continue
            if group == "actors":
                yield CheckedPlugin(group, name, "3ox.toml", needed=True)
            else:
                reason = f"{where} of 3ox.toml names it, and no installed package has it"
                yield CheckedPlugin(group, name, "", reason, needed=True)


def _main(groups: Sequence[str]) -> int:
    # What a plug-in prints when it is imported goes to stderr.
    output = os.dup(1)
    os.dup2(2, 1)
    chosen = [group for group in GROUPS if group in groups]
    found = list(_report(load_settings(), chosen))
    with open(output, "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
