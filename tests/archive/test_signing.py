"""The keys of the ledger: made once, private, replaced in time."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from ops.errors import SettingsError
from ops.signing import KeyRing

NOON_S = 1_795_348_800.0
DAY_S = 86_400.0


def private_parts(folder: Path) -> dict[str, bool]:
    """Return, by key, whether its private part exists."""
    keys = [msgspec.json.decode(file.read_bytes()) for file in folder.glob("ledger-*.json")]
    return {key["kid"]: bool(key.get("private")) for key in keys}


def test_the_first_key_is_made_on_first_use_and_kept(tmp_path: Path) -> None:
    """Mode 0600, and the same one in the next process."""
    ring = KeyRing(tmp_path / "keys")
    assert ring.public_keys(NOON_S) == []
    signer = ring.signer(NOON_S)
    files = list((tmp_path / "keys").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]
    again = KeyRing(tmp_path / "keys")
    assert again.signer(NOON_S + 1).kid == signer.kid
    assert again.verify(signer.kid, signer.sign(b"text"), b"text")
    assert not again.verify(signer.kid, signer.sign(b"text"), b"another")
    assert not again.verify("0" * 16, signer.sign(b"text"), b"text")
    assert not again.verify(signer.kid, "no base64!", b"text")
    assert b"private" not in msgspec.json.encode(ring.public_keys(NOON_S))


def test_a_key_that_is_open_to_others_is_not_used(tmp_path: Path) -> None:
    """The error names the file and the command that corrects its mode."""
    ring = KeyRing(tmp_path)
    ring.signer(NOON_S)
    file = next(tmp_path.iterdir())
    file.chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        ring.signer(NOON_S)
    assert caught.value.remedy == f"Run 'chmod 600 {file}'."


def test_a_key_is_replaced_with_an_overlap(tmp_path: Path) -> None:
    """The next key is published for a day before it signs; a day later the old one can no longer sign."""
    ring = KeyRing(tmp_path, lifetime_s=10 * DAY_S)
    first = ring.signer(NOON_S)
    assert ring.signer(NOON_S + 10 * DAY_S).kid == first.kid
    changing_s = NOON_S + 10 * DAY_S + 60
    assert ring.signer(changing_s).kid == first.kid, "the next one is only published"
    old, new = ring.public_keys(changing_s)
    assert (old.kid, old.signs, new.signs) == (first.kid, True, False)
    second = ring.signer(changing_s + DAY_S)
    assert second.kid == new.kid
    assert private_parts(tmp_path) == {old.kid: True, new.kid: True}
    assert ring.signer(changing_s + 2 * DAY_S + 60).kid == new.kid
    assert private_parts(tmp_path) == {old.kid: False, new.kid: True}
    assert ring.verify(first.kid, first.sign(b"old"), b"old"), "its signatures stay good"
    assert [key.signs for key in ring.public_keys(changing_s + 3 * DAY_S)] == [False, True]
    assert len(private_parts(tmp_path)) == 2, "one successor, however often it is asked for"


def test_a_key_can_be_replaced_by_hand(tmp_path: Path) -> None:
    """With the same overlap; the first key signs at once."""
    ring = KeyRing(tmp_path)
    first = ring.rotate(NOON_S)
    assert first.signs
    second = ring.rotate(NOON_S + 1)
    assert ring.signer(NOON_S + 2).kid == first.kid
    assert ring.signer(NOON_S + 2 + DAY_S).kid == second.kid


def test_a_clock_that_was_set_back_still_has_a_key(tmp_path: Path) -> None:
    """At a time before its creation, the first key signs."""
    ring = KeyRing(tmp_path)
    assert ring.signer(NOON_S).kid == ring.signer(NOON_S - 365 * DAY_S).kid


def test_a_key_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It is not replaced: lines signed with it would become invalid."""
    ring = KeyRing(tmp_path)
    ring.signer(NOON_S)
    next(tmp_path.iterdir()).write_text("{")
    with pytest.raises(SettingsError, match="cannot be read"):
        ring.signer(NOON_S)
