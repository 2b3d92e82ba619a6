"""Received files get a name of their own: no file is replaced, no note goes to another file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ingress.core.drop_folder import publish


def draft(inbox: Path, text: str) -> Path:
    """Write a file under a name that the station ignores."""
    path = inbox / f".upload-{text}.part"
    path.write_text(text)
    return path


def names(number: int) -> str:
    """Return ``a``, ``a-2``, ..."""
    return "a" if number == 1 else f"a-{number}"


def listing(inbox: Path) -> dict[str, str]:
    """Return the names in the folder and their content."""
    return {path.name: path.read_text() for path in sorted(inbox.iterdir())}


def test_nothing_is_replaced(tmp_path: Path) -> None:
    """Neither a file nor the note of another file, nor a broken link."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "a-2").symlink_to("nowhere")
    (tmp_path / "a-3.note.txt").write_text("of another")
    assert publish(draft(tmp_path, "new"), names, "mine").name == "a-4"
    (tmp_path / "a-2").unlink()
    assert listing(tmp_path) == {
        "a": "old",
        "a-3.note.txt": "of another",
        "a-4": "new",
        "a-4.note.txt": "mine",
    }


def test_whose_note_it_is(tmp_path: Path) -> None:
    """A file without a note does not get an existing one, unless the caller allows it."""
    (tmp_path / "a.note.txt").write_text("lonely")
    assert publish(draft(tmp_path, "one"), names, "").name == "a-2"
    assert publish(draft(tmp_path, "two"), names, "lonely").name == "a"
    (tmp_path / "a").unlink()
    assert publish(draft(tmp_path, "three"), names, None).name == "a"


def test_many_at_once_keep_their_own_notes(tmp_path: Path) -> None:
    """Callers that want the same name at the same time get different ones, each with its own note."""
    texts = [f"text{number}" for number in range(24)]
    drafts = [draft(tmp_path, text) for text in texts]
    start = threading.Barrier(len(texts))

    def arrive(path: Path, text: str) -> None:
        start.wait(10)
        publish(path, names, f"note of {text}")

    threads = [threading.Thread(target=arrive, args=pair) for pair in zip(drafts, texts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = listing(tmp_path)
    files = {name: text for name, text in found.items() if not name.endswith(".note.txt")}
    assert sorted(files.values()) == sorted(texts)
    assert {name: found[f"{name}.note.txt"] for name in files} == {
        name: f"note of {text}" for name, text in files.items()
    }
    assert len(found) == 2 * len(texts)


def test_a_folder_with_a_thousand_of_them(tmp_path: Path) -> None:
    """It is an error, and the draft stays for the caller to remove."""
    path = draft(tmp_path, "new")
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileExistsError):
        publish(path, lambda _: "a", "note")
    assert listing(tmp_path) == {".upload-new.part": "new", "a": "old"}
