"""Follow a guide of ``docs/``: make the edits that it describes in a copy of the source tree."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.support import ROOT

GUIDES = ("tutorial/add-a-job-type.md", "how-to/add-a-middleware.md", "how-to/add-an-interface.md")
#: Commands that the guides add; they exist in the copy only.
NEW_COMMANDS = frozenset({"pipe"})
#: What a guide starts from: a checkout.
_PACKAGES = ("ops", "middleware", "actors", "ingress", "tests")
_BLOCK = r"\n\n```(?:python|toml)\n(?P<text>.*?)```"
_NEW = re.compile(r"[Aa] new\s+file\s+`(?P<file>[\w./]+)`:" + _BLOCK, re.DOTALL)
_EDIT = re.compile(
    r"In\s+`(?P<file>[\w./]+)`,\s+(?P<how>at the end|after|before|instead of)(?:\s+`(?P<line>[^\n]*?)`)?:"
    + _BLOCK,
    re.DOTALL,
)


def new_files() -> set[str]:
    """Return the files that the guides create."""
    pages = [(ROOT / "docs" / page).read_text() for page in GUIDES]
    return {found["file"] for text in pages for found in _NEW.finditer(text)}


def copy_tree(to: Path) -> None:
    """Copy the source tree on which the guides work."""
    for name in _PACKAGES:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "cmd_bridge.py"):
        shutil.copy(ROOT / file, to)


def follow(page: str, tree: Path) -> list[Path]:
    """Make the edits of a page.

    Args:
        page: Its path below ``docs/``.
        tree: A copy of the source tree.

    Returns:
        The files that were created or edited.
    """
    text = (ROOT / "docs" / page).read_text()
    touched = []
    for found in _NEW.finditer(text):
        file = tree / found["file"]
        assert not file.exists() or file.read_text() == found["text"], f"{file} is not new"
        file.write_text(found["text"])
        touched.append(file)
    for found in _EDIT.finditer(text):
        file = tree / found["file"]
        before = file.read_text()
        # A tree in which the page was followed and `make format` was run contains the edit already.
        if _bare(found["text"]) not in _bare(before):
            file.write_text(_edited(before, found["how"], found["line"], found["text"], str(file)))
        touched.append(file)
    described = len(re.findall(r"^(?:In `|.*[Aa] new file `)", text, re.MULTILINE))
    assert len(touched) >= described, f"{page}: {len(touched)} of {described} edits were recognized"
    return touched


def _bare(text: str) -> str:
    return "".join(text.split())


def _edited(before: str, how: str, line: str | None, text: str, file: str) -> str:
    if how == "at the end":
        return f"{before}\n\n{text}"
    assert line is not None
    assert line in before, f"{file} has no {line!r}"
    if how == "instead of":
        return before.replace(line, text.rstrip("\n"), 1)
    at = before.index(line)
    if how == "before":
        return before[:at] + text + before[at:]
    end = before.index("\n", at) + 1
    return before[:end] + text + before[end:]
