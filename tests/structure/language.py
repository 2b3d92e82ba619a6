"""Phrases that mark a sentence for rewriting, in documentation and in the text of the product.

The product speaks plain technical English; CONTRIBUTING.md has the rules. The pages of ``docs`` and of the
top folder are read, and of the sources the docstrings, comments and string literals.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.structure.modules import Module
from tests.support import ROOT

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "Makefile",
    "docs/**/*.md",
    "docs/**/*.html",
)
#: Files of the product that are not Python: server-side functions, templates, scripts of pages.
OTHER = (
    "middleware/**/*.lua",
    "ingress/**/*.html",
    "ingress/**/*.jinja*",
    "ingress/**/*.js",
    "ingress/**/*.txt",
)

#: Patterns, each with what to write instead.
PATTERNS: dict[str, str] = {
    r"\bGives? (the|a|an|what|how|who)\b": "Return",
    r"\bTell whether\b": "Return whether",
    r"\bso (often|long)\b": "the interval, the limit",
    r"\bis no [a-km-z]": "is not a, must be",
    r"\banew\b": "again",
    r"\bonce more\b": "again",
    r"\b[Ww]hoever\b": "the caller, the client, a process",
    r"\b([Ss]ome|[Nn]o)body\b": "a user, no client",
    r"\blet go of\b": "removed, released",
    r"\bstands? (in|at|on)\b": "is in",
    r"\blies in\b": "is in",
    r"\b(is|are) away\b": "is unavailable",
    r"\bhears? of\b": "is notified of",
    r"\btakes leave\b": "disconnects",
    r"\bseen off\b": "stopped",
    r"\bby whose leave\b": "policy",
    r"\bnot to be had\b": "not found, not available",
    r"\bhad ended before\b": "had already finished",
}


class Phrase(NamedTuple):
    """A phrase of a page or a module.

    Attributes:
        place: File and line.
        pattern: What it matches.
        text: The line.
    """

    place: str
    pattern: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


#: Phrases that stay, with the reason: (file, part of the line).
KEPT: dict[tuple[str, str], str] = {}


def phrases(modules: Sequence[Module]) -> list[Phrase]:
    """Return the phrases to rewrite, except those in ``KEPT``."""
    return [found for found in all_phrases(modules) if not is_kept(found)]


def is_kept(phrase: Phrase) -> bool:
    """Return whether ``KEPT`` lists a phrase."""
    file = phrase.place.rpartition(":")[0]
    return any(file == where and part in phrase.text for where, part in KEPT)


def all_phrases(modules: Sequence[Module]) -> list[Phrase]:
    """Return every phrase that matches a pattern."""
    compiled = [(pattern, re.compile(pattern)) for pattern in PATTERNS]
    return [
        Phrase(f"{path}:{number}", pattern, text.strip())
        for path, number, text in _lines(modules)
        for pattern, regex in compiled
        if regex.search(text)
    ]


def _lines(modules: Sequence[Module]) -> Iterator[tuple[Path, int, str]]:
    for pattern in (*PAGES, *OTHER):
        for file in sorted(ROOT.glob(pattern)):
            for number, line in enumerate(file.read_text().splitlines(), start=1):
                yield file.relative_to(ROOT), number, line
    for module in modules:
        for number, text in (*_comments(module.text), *_literals(module.tree)):
            yield module.path, number, text


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the lines of all string literals, docstrings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, line in enumerate(node.value.splitlines()):
                yield node.lineno + number, line
