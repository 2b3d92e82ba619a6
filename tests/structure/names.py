"""Class names used twice within a layer; long modules and functions; reads of the environment."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence

from tests.structure.modules import Module

MODULE_LINES, FUNCTION_LINES = 400, 60
_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}


def repeated_classes(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Return the class names that a layer has more than once, nested and private ones too."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                places[module.layer, node.name].append(f"{module.path}:{node.lineno}")
    return {f"{layer}: {name}": found for (layer, name), found in sorted(places.items()) if len(found) > 1}


def long_modules(modules: Sequence[Module]) -> list[str]:
    """Return the modules of more than ``MODULE_LINES`` lines."""
    sizes = [(module.path, module.text.count("\n")) for module in modules]
    return [f"{path}: {size} lines" for path, size in sizes if size > MODULE_LINES]


def long_functions(modules: Sequence[Module]) -> list[str]:
    """Return the functions of more than ``FUNCTION_LINES`` lines."""
    return [
        f"{module.path}:{node.lineno}: {node.name} has {size} lines"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def environment_reads(modules: Sequence[Module]) -> list[str]:
    """Return where the product reads or changes the environment by itself.

    ``ops.environment`` does so, because it normalizes every value.
    """
    return [
        f"{module.path}:{node.lineno}"
        for module in modules
        if module.name != "ops.environment"
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Attribute) and (node.attr == "expanduser" or _is_environment(node)))
        or (isinstance(node, ast.ImportFrom) and any(alias.name in _ENVIRONMENT for alias in node.names))
    ]


def _is_environment(node: ast.Attribute) -> bool:
    return node.attr in _ENVIRONMENT and isinstance(node.value, ast.Name) and node.value.id == "os"
