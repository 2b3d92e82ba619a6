"""Import cycles, interfaces that import each other, and late imports of our own modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.structure.modules import Module

#: Interfaces: each imports ``ingress.core`` and ``ingress.dispatch``, never another one.
ADAPTERS = ("cli", "rest", "dashboard", "telegram", "station", "clock", "shell", "mcp", "demo")
#: The exceptions, with the reason: (who imports, what is imported), modules or packages.
ACROSS: dict[tuple[str, str], str] = {
    (
        "ingress.cli.daemons",
        "ingress",
    ): "`3ox serve`, `rest`, `telegram`, `clock`, `shell` and `demo` start "
    "those interfaces; each is imported when its command is called",
}
#: Late imports of our own modules, with the reason; (who imports, what is imported) as above.
LATE: dict[tuple[str, str], str] = {
    (
        "ingress.cli",
        "",
    ): "`3ox --help` loads the module of every command; what the commands import when they "
    "run would add a second to it (structlog 200 ms, redis 150 ms, litestar, rich)",
    (
        "ingress.core.run_and_follow",
        "actors.in_process",
    ): "dramatiq and the actors take 250 ms, and are needed only without a store",
    (
        "actors",
        "actors.main_pool",
    ): "makes the broker, which takes 250 ms; most programs import the package for its declarations only",
    (
        "actors.llm.model_provider",
        "actors.llm.model_exchange",
    ): "loads the model library, which is an extra and takes 2 to 5 s; only a "
    "worker that asks a model needs it",
    (
        "middleware.tracing",
        "ops.otel",
    ): "loads OpenTelemetry, which is an extra and takes 300 ms; only a worker with an endpoint needs it",
}


class Edge(NamedTuple):
    """An import that is not allowed."""

    source: str
    target: str
    place: str

    def __str__(self) -> str:
        return f"{self.place} imports {self.target}"


def cycles(modules: Sequence[Module]) -> list[list[str]]:
    """Return the groups of modules that import each other, counting late imports and those for types."""
    graph = {module.name: {found.target for found in module.imports} for module in modules}
    return [sorted(group) for group in _components(graph) if len(group) > 1 or group[0] in graph[group[0]]]


def _components(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            at = stack.index(name)
            found.append(stack[at:])
            del stack[at:]

    for name in graph:
        if name not in index:
            visit(name)
    return found


def adapter_of(name: str) -> str | None:
    """Return the interface that a module belongs to; None if it belongs to none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "ingress" and parts[1] in ADAPTERS else None


def across_adapters(modules: Sequence[Module]) -> list[Edge]:
    """Return the imports of one interface by another, except those in ``ACROSS``."""
    return [
        Edge(module.name, found.target, f"{module.path}:{found.line}")
        for module in modules
        for found in module.imports
        if adapter_of(module.name) is not None
        and adapter_of(found.target) not in {None, adapter_of(module.name)}
        and not _is_listed(module.name, found.target, ACROSS)
    ]


def late_imports(modules: Sequence[Module]) -> list[Edge]:
    """Return the late imports of our own modules, except those in ``LATE`` and ``ACROSS``."""
    return [
        Edge(module.name, found.target, f"{module.path}:{found.line}")
        for module in modules
        for found in module.imports
        if found.kind == "late"
        and not _is_listed(module.name, found.target, LATE)
        and not _is_listed(module.name, found.target, ACROSS)
    ]


def typing_imports(modules: Sequence[Module]) -> list[Edge]:
    """Return the imports of our own modules for type checkers only."""
    return [
        Edge(module.name, found.target, f"{module.path}:{found.line}")
        for module in modules
        for found in module.imports
        if found.kind == "typing"
    ]


def unused(modules: Sequence[Module], table: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Return the rows of a table of exceptions that no import needs any more."""
    edges = [(module.name, found.target) for module in modules for found in module.imports]
    return [row for row in table if not any(_is_listed(*edge, {row: ""}) for edge in edges)]


def _is_listed(source: str, target: str, table: Mapping[tuple[str, str], str]) -> bool:
    return any(_is_in(source, who) and _is_in(target, what) for who, what in table)


def _is_in(name: str, place: str) -> bool:
    return place in {"", name} or name.startswith(f"{place}.")
