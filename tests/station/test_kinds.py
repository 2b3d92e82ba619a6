"""Properties of a file and its job: type, name, rule, idempotency key."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.ingest.decision import decide_by_rules, matches
from actors.job_types.ingest_file import IngestFilePayload
from ingress.core.drop_folder import file_name
from ingress.station.claims import Claim
from ingress.station.jobs import content_key
from ops.drop_folder_layout import shortened
from ops.filetype import media_type_of_head
from ops.settings.station import StationRule, StationSettings


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


def test_the_key_follows_the_policy() -> None:
    """By content, by content and name, or never; a job without a result does not count."""
    one, other = (Claim("i", Path("x"), "", name) for name in ("a", "b"))
    once, by_name, again = (StationSettings(same_content=kind) for kind in ("once", "by_name", "again"))
    assert content_key(once, one, "s") == content_key(once, other, "s") == "file:s"
    assert content_key(by_name, one, "s") != content_key(by_name, other, "s")
    assert content_key(again, one, "s") is None
    assert content_key(once, one, "s", after="job") == "file:s:after:job"


@pytest.mark.parametrize(
    ("given", "name"),
    [("../../etc/passwd", "passwd"), ("C:\\x\\y.doc", "y.doc"), ("", "file"), ("..", "file"), ("a\0b", "ab")],
)
def test_a_stranger_s_file_name_is_one_name(given: str, name: str) -> None:
    """No path, not empty, no zero byte."""
    assert file_name(given) == name


@pytest.mark.parametrize("name", ["ü" * 200 + ".txt", "x" * 300, "." + "y" * 300, "a." + "z" * 300])
def test_a_long_name_is_cut_at_its_stem(name: str) -> None:
    """It fits, keeps its suffix where possible, and contains the inserted text."""
    cut = shortened(name, "~id")
    assert len(cut.encode()) <= 255
    assert "~id" in cut
    if name.endswith(".txt"):
        assert cut.endswith("~id.txt")
