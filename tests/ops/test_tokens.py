"""API tokens: made, kept hashed, checked, revoked."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ops.errors import SettingsError, UsageProblem
from ops.lockfile import take_lock
from ops.tokens import FIRST, Principal, Tokens
from ops.workspace import Workspace


def test_made_checked_revoked(workspace: Workspace) -> None:
    """A token is known by another process at once, and not any more once it is revoked."""
    tokens, others = Tokens(workspace), Tokens(workspace)
    token = tokens.make("ci", "submit")
    assert others.check(token) == Principal("ci", "submit")
    assert others.check(token[:-1] + ("a" if token[-1] != "a" else "b")) is None
    assert others.check("") is None
    with pytest.raises(UsageProblem, match="already"):
        tokens.make("ci", "view")
    tokens.revoke("ci")
    assert others.check(token) is None
    with pytest.raises(UsageProblem, match="Unknown token"):
        tokens.revoke("ci")


def test_scopes_stand_above_each_other(workspace: Workspace) -> None:
    """An admin may all, submit also views, view views."""
    del workspace
    for scope, allowed in (("view", 1), ("submit", 2), ("admin", 3)):
        may = [Principal("x", scope).may(wanted) for wanted in ("view", "submit", "admin")]  # type: ignore[arg-type]
        assert may == [True] * allowed + [False] * (3 - allowed)


def test_nothing_of_a_token_is_kept(workspace: Workspace) -> None:
    """The file holds no secret, and is readable by its owner only; wider permissions are corrected."""
    token = Tokens(workspace).make("ci", "admin")
    file = workspace.keys_dir / "tokens.json"
    assert token.split("_", 2)[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert Tokens(workspace).check(token) is not None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_first_one_is_made_once(workspace: Workspace) -> None:
    """However many processes start at the same time; and none where the setting has one."""
    assert Tokens(workspace, "mine").make_first() is None
    start = threading.Barrier(8)

    def make(_: int) -> str | None:
        start.wait(10.0)
        return Tokens(workspace).make_first()

    with ThreadPoolExecutor(8) as pool:
        made = [token for token in pool.map(make, range(8)) if token is not None]
    assert len(made) == 1
    assert Tokens(workspace).check(made[0]) == Principal(FIRST, "admin")


def test_made_by_many_at_once(workspace: Workspace) -> None:
    """No change of the file gets lost to another one at the same time."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: Tokens(workspace).make(f"t{number}", "view"), range(24)))
    assert all(Tokens(workspace).check(token) is not None for token in made)


def test_the_setting_is_an_admins(workspace: Workspace) -> None:
    """It is compared whole; an empty setting is not a token."""
    assert Tokens(workspace, "mine").check("mine") == Principal("api_token", "admin")
    assert Tokens(workspace, "mine").check("min") is None
    assert Tokens(workspace, "").check("") is None


@pytest.mark.parametrize("name", ["", "a b", "-x", "api_token", "x" * 65, "a/b"])
def test_names_that_are_none(workspace: Workspace, name: str) -> None:
    """A name that would be hard to type or to tell apart is refused."""
    with pytest.raises(UsageProblem, match="is not valid"):
        Tokens(workspace).make(name, "view")


def test_a_file_that_cannot_be_understood(workspace: Workspace) -> None:
    """No token is valid, and the error names the remedy."""
    (workspace.keys_dir / "tokens.json").write_text("{")
    with pytest.raises(SettingsError, match=r"tokens\.json is not valid") as caught:
        Tokens(workspace).check("3ox_00000000_" + "a" * 43)
    assert "3ox token make" in caught.value.remedy


class Interrupted(Tokens):
    """Something happens just before and just after it remembers what it has read.

    Attributes:
        before: Called once, before the first assignment.
        after: Called after each one.
    """

    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign, with what happens around it."""
        before, after = self.__dict__.pop("before", None), self.__dict__.pop("after", None)
        if before is not None:
            before()
        super().__setattr__(name, value)
        if after is not None:
            after()
            self.__dict__["after"] = after


def test_a_slow_reader_brings_no_revoked_token_back(workspace: Workspace) -> None:
    """It has read the old file, others have seen the new one since: whatever it remembers, they are right."""
    token = Tokens(workspace).make("t", "view")
    tokens = Interrupted(workspace)
    seen: list[Principal | None] = []

    def revoke() -> None:
        Tokens(workspace).revoke("t")
        seen.append(tokens.check(token))

    tokens.__dict__.update(before=revoke, after=lambda: seen.append(tokens.check(token)))
    tokens.check(token)
    assert len(seen) >= 2
    assert set(seen) == {None}


def test_somebody_holds_on_as_long_as_the_token_does(workspace: Workspace) -> None:
    """Asked by who was found out before: revoked, or of another scope now, is no longer the same."""
    tokens = Tokens(workspace, "mine")
    who = tokens.check(tokens.make("ci", "view"))
    setting = tokens.check("mine")
    assert who is not None
    assert setting is not None
    assert (tokens.holds(who), tokens.holds(setting)) == (True, True)
    assert not Tokens(workspace).holds(setting)
    Tokens(workspace).revoke("ci")
    assert not tokens.holds(who)
    Tokens(workspace).make("ci", "admin")
    assert not tokens.holds(who)


def test_a_change_that_stands_still_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process holds the lock: the next change reports it after the timeout."""
    monkeypatch.setattr("ops.tokens._LOCK_WITHIN_S", 0.05)
    tokens = Tokens(workspace)
    tokens.make("first", "view")
    fd = take_lock(workspace.keys_dir / "tokens.lock", within_s=1.0)
    with pytest.raises(SettingsError, match="Another process has locked the tokens") as caught:
        tokens.make("second", "view")
    assert "try again" in caught.value.remedy
    os.close(fd)
    tokens.make("second", "view")
