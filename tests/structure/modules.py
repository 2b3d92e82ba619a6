"""The modules of the product, parsed, and what each of them imports."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from tests.support import ROOT

LAYERS = ("ops", "middleware", "actors", "ingress")


class Import(NamedTuple):
    """One import of a module of ours.

    Attributes:
        target: The imported module.
        line: Where it is imported.
        kind: ``top`` of the module, ``late`` (in a function) or ``typing`` (for type checkers only).
    """

    target: str
    line: int
    kind: Literal["top", "late", "typing"]


class Module(NamedTuple):
    """A module of the product.

    Attributes:
        name: As it is imported.
        path: From the repository.
        tree: Its syntax tree.
        text: Its source.
        imports: What it imports of ours.
    """

    name: str
    path: Path
    tree: ast.Module
    text: str
    imports: tuple[Import, ...]

    @property
    def layer(self) -> str:
        """The top-level package."""
        return self.name.partition(".")[0]


@functools.cache
def product() -> tuple[Module, ...]:
    """Return all modules of the product."""
    files = sorted(file for layer in LAYERS for file in (ROOT / layer).rglob("*.py"))
    return parse({file.relative_to(ROOT): file.read_text() for file in files})


def parse(sources: Mapping[Path, str]) -> tuple[Module, ...]:
    """Return the modules of a set of files.

    Args:
        sources: The text of each file, by its path from the folder of the packages.
    """
    names = frozenset(_name(path) for path in sources)
    trees = {path: ast.parse(text) for path, text in sources.items()}
    return tuple(
        Module(_name(path), path, tree, sources[path], tuple(_imports(tree, names)))
        for path, tree in trees.items()
    )


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imports(tree: ast.Module, names: frozenset[str]) -> Iterator[Import]:
    def visit(node: ast.AST, kind: Literal["top", "late", "typing"]) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # ``from package import module`` imports the module; of its names only those that are modules.
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [part if part in names else node.module for part in parts]
        else:
            targets = []
            for child in ast.iter_child_nodes(node):
                yield from visit(child, _kind_of(node, child, kind))
        for target in dict.fromkeys(targets):
            if target in names:
                yield Import(target, getattr(node, "lineno", 0), kind)

    yield from visit(tree, "top")


def _kind_of(
    node: ast.AST, child: ast.AST, kind: Literal["top", "late", "typing"]
) -> Literal["top", "late", "typing"]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return "late"
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body:
        return "typing"
    return kind
