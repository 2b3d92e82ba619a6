"""Properties of a file and its job: type, name, rule."""

from __future__ import annotations

import pytest

from actors.ingest.decision import decide_by_rules, matches
from actors.job_types.ingest_file import IngestFilePayload
from ingress.core.drop_folder import received_name
from ops.drop_folder_layout import shortened
from ops.filetype import media_type_of_head
from ops.settings.station import StationRule


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b"", "a.txt", "inode/x-empty"),
        (b"a;b;c\n1;2;3\n", "figures.csv", "text/csv"),
        (b"#!/bin/sh\necho\n", "run", "text/x-shellscript"),
        (b"# Title\n", "a.MD", "text/markdown"),
        ("grüße".encode()[:-1] + b"\xc3", "a.txt", "text/plain"),
        (b"%PDF-1.7\n%", "paper.txt", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture.txt", "image/png"),
        (b"PK\x03\x04\x14\0\x06\0", "a.docx", "wordprocessingml.document"),
        (b"PK\x03\x04\x14\0\x06\0", "a.zip", "application/zip"),
        (b"\0\1\2\3\4\5\6\7", "a.txt", "application/octet-stream"),
        (b"<!DOCTYPE html><html>", "page", "text/html"),
    ],
)
def test_the_type_comes_from_content_and_name(head: bytes, name: str, expected: str) -> None:
    """The content counts, not a misleading name; kinds of text differ by name."""
    assert media_type_of_head(head, name).endswith(expected)


def payload(name: str, folder: str = "", media_type: str = "text/plain") -> IngestFilePayload:
    """Return the payload of a file."""
    return IngestFilePayload(
        path="x", name=name, sha256="0" * 64, size_bytes=1, folder=folder, media_type=media_type
    )


@pytest.mark.parametrize(
    ("pattern", "name", "folder", "fits"),
    [
        ("*.pdf", "A.PDF", "", True),
        ("*.pdf", "a.pdf.txt", "", False),
        ("papers/*", "a", "papers", True),
        ("papers/*", "a", "papers/old", True),
        ("papers/*", "a", "", False),
        ("type:text/*", "a", "", True),
        ("type:image/*", "a.png", "", False),
        ("[ab].txt", "b.txt", "", True),
    ],
)
def test_rules_match_name_path_or_type(pattern: str, name: str, folder: str, fits: bool) -> None:
    """Letter case does not matter."""
    assert matches(pattern, payload(name, folder)) is fits


def test_the_first_rule_counts() -> None:
    """And is named in the decision."""
    rules = [StationRule(match="*.a", action="GROUP"), StationRule(match="*", action="MOVE", to="there")]
    decision = decide_by_rules(rules, payload("x.b"))
    assert decision is not None
    assert (decision.action, decision.location, decision.by) == ("MOVE", "there", "rule 2")
    assert decide_by_rules(rules[:1], payload("x.b")) is None


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.doc", "y.doc"),
        ("", "upload-file"),
        ("..", "upload-file"),
        (" . ", "upload-file"),
        ("a\0b\n", "a_b_"),
        (".ssh/.bashrc", "upload-bashrc"),
        ("€ rates.txt", "€ rates.txt"),
        ("evil\u202etxt.exe", "evil_txt.exe"),
        ("film.part", "film.part"),
        ("é" * 200 + ".tar.gz", "é" * 102 + ".gz"),
    ],
)
def test_a_sender_s_file_name_is_one_visible_name(given: str, name: str) -> None:
    """No path, not empty, not hidden, no control characters, not too long; anything else is kept."""
    assert received_name(given, "upload") == name


@pytest.mark.parametrize("name", ["ü" * 200 + ".txt", "x" * 300, "." + "y" * 300, "a." + "z" * 300])
def test_a_long_name_is_cut_at_its_stem(name: str) -> None:
    """It fits, keeps its suffix where possible, and contains the inserted text."""
    cut = shortened(name, "~id")
    assert len(cut.encode()) <= 255
    assert "~id" in cut
    if name.endswith(".txt"):
        assert cut.endswith("~id.txt")
