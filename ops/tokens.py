"""API tokens: made, kept hashed, checked in constant time, revoked.

They stand in ``.3ox/keys/tokens.json``, written anew as a whole and renamed into place. A token is
``3ox_ID_SECRET``: the id is no secret and finds its line, of the rest only a SHA-256 is kept; the secret has
256 random bits, so nothing slower is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from ops.errors import SettingsError, UsageProblem
from ops.files import write_durably
from ops.lockfile import take_lock
from ops.workspace import Workspace

Scope: TypeAlias = Literal["view", "submit", "admin"]

#: Each scope allows what those before it allow.
SCOPES: tuple[Scope, ...] = ("view", "submit", "admin")
#: Who uses the token of the setting ``api_token``.
SETTING_NAME = "api_token"
#: The token that is made when there is none.
FIRST = "first"
#: More tokens than this are a mistake of a script.
TOKENS_MAX = 1000
#: A change takes a few milliseconds; whoever holds the lock for longer has been stopped.
_LOCK_WITHIN_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"3ox_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


class Principal(Struct, frozen=True):
    """Who commands, and how much.

    Attributes:
        name: Of the token.
        scope: What it allows.
    """

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        """Tell whether this scope, or one above it, was given."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class TokenEntry(Struct, frozen=True, kw_only=True):
    """What is kept of a token.

    Attributes:
        token_id: Its public part.
        name: Who or what uses it; unique.
        scope: What it allows.
        sha256: Of the whole token.
        created_at: UTC.
    """

    token_id: str
    name: str
    scope: Scope
    sha256: str
    created_at: str


class TokenFile(Struct, frozen=True):
    """The file."""

    tokens: list[TokenEntry] = []
    version: int = 1


class _TokenFileVersion(NamedTuple):
    """What the file held, and which version of it that was."""

    stamp: tuple[int, int, int] | None
    known: dict[str, TokenEntry]


_NOTHING = _TokenFileVersion(None, {})


class Tokens:
    """The API tokens of a workspace; safe to use from several threads and processes.

    Args:
        workspace: Whose.
        setting: The setting ``api_token``: an admin's token; empty for none.
    """

    def __init__(self, workspace: Workspace, setting: str = "") -> None:
        self._file = workspace.keys_dir / "tokens.json"
        self._setting_sha256 = _digest(setting) if setting else ""
        # One value: a thread that reads it between two assignments would take old tokens for the new ones.
        self._cache = _NOTHING

    def entries(self) -> list[TokenEntry]:
        """Give all tokens, oldest first.

        Raises:
            SettingsError: The file cannot be read.
        """
        return list(self._read().values())

    def any(self) -> bool:
        """Tell whether there is any token, the setting's included."""
        return self._setting_sha256 != "" or bool(self._read())

    def make(self, name: str, scope: Scope) -> str:
        """Make a token.

        Args:
            name: Who or what will use it.
            scope: What it is to allow.

        Returns:
            The token; it is not kept and cannot be shown again.

        Raises:
            UsageProblem: The name is taken or has not the right form.
            SettingsError: The file cannot be written.
        """
        if _NAME.fullmatch(name) is None or name == SETTING_NAME:
            raise UsageProblem(
                f"a token cannot be named {name!r}.",
                remedy="Use letters, digits and . _ -, beginning with a letter or digit, at most 64.",
            )
        with self._changing():
            return self._add(name, scope)

    def make_first(self) -> str | None:
        """Make an admin's token if there is none at all.

        Returns:
            The token, or None if there is one already.
        """
        if self.any():
            return None
        with self._changing():
            return None if self.any() else self._add(FIRST, "admin")

    def _add(self, name: str, scope: Scope) -> str:
        entries = self.entries()
        if any(entry.name == name for entry in entries):
            raise UsageProblem(
                f"there is a token {name!r} already.",
                remedy=f"Choose another name, or revoke it: 3ox token revoke {name}.",
            )
        if len(entries) >= TOKENS_MAX:
            raise UsageProblem(
                f"there are {len(entries)} tokens already.", remedy="Revoke some: 3ox token revoke NAME."
            )
        token_id = secrets.token_hex(4)
        token = f"3ox_{token_id}_{secrets.token_urlsafe(32)}"
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = TokenEntry(token_id=token_id, name=name, scope=scope, sha256=_digest(token), created_at=at)
        self._write([*entries, entry])
        return token

    def revoke(self, name: str) -> TokenEntry:
        """Take a token out of use, at once and for good.

        Args:
            name: Its name or id.

        Raises:
            UsageProblem: There is none.
        """
        with self._changing():
            entries = self.entries()
            found = next((entry for entry in entries if name in {entry.name, entry.token_id}), None)
            if found is None:
                raise UsageProblem(f"there is no token {name!r}.", remedy="'3ox token list' lists all.")
            self._write([entry for entry in entries if entry is not found])
            return found

    def check(self, token: str) -> Principal | None:
        """Find out who uses this token.

        Returns:
            Who, or None for a token that is not valid.

        Raises:
            SettingsError: The file cannot be read.
        """
        given = _digest(token)
        # Both are compared whatever the first one says: the time taken tells nothing about either.
        is_setting = hmac.compare_digest(given, self._setting_sha256 or _digest(""))
        parts = _TOKEN.fullmatch(token)
        entry = None if parts is None else self._read().get(parts[1])
        is_kept = hmac.compare_digest(given, _digest("") if entry is None else entry.sha256)
        if is_setting and self._setting_sha256 and token:
            return Principal(SETTING_NAME, "admin")
        return Principal(entry.name, entry.scope) if is_kept and entry is not None else None

    def holds(self, principal: Principal) -> bool:
        """Tell whether somebody who was known once still is: the token is there, and allows as much.

        Raises:
            SettingsError: The file cannot be read.
        """
        if principal.name == SETTING_NAME:
            return self._setting_sha256 != ""
        return any(
            entry.name == principal.name and entry.scope == principal.scope for entry in self._read().values()
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the one process that changes the file."""
        lock = self._file.with_suffix(".lock")
        try:
            fd = take_lock(lock, within_s=_LOCK_WITHIN_S)
        except TimeoutError as error:
            raise SettingsError(
                f"another process has been at the tokens in {self._file} for {_LOCK_WITHIN_S:g} s.",
                remedy="End it ('3ox token' that was stopped, for instance), then try again.",
            ) from error
        except OSError as error:
            raise _unusable(self._file, error) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(fd)

    def _read(self) -> dict[str, TokenEntry]:
        """Read the file if it has changed since, so that a revoked token ends at once."""
        cache = self._cache
        try:
            found = self._file.stat()
            # Renamed into place, each version is another inode; the other two are for copies by hand.
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != cache.stamp:
                if stat.S_IMODE(found.st_mode) & 0o077:
                    self._file.chmod(0o600)
                # After the stamp: what was read may be newer than it says, and is read again then.
                kept = msgspec.json.decode(self._file.read_bytes(), type=TokenFile)
                cache = self._cache = _TokenFileVersion(
                    stamp, {entry.token_id: entry for entry in kept.tokens}
                )
        except FileNotFoundError:
            cache = self._cache = _NOTHING
        except OSError as error:
            raise _unusable(self._file, error) from error
        except msgspec.MsgspecError as error:
            raise SettingsError(
                f"{self._file} cannot be understood: {error}.",
                remedy="Delete it and make new tokens: 3ox token make NAME.",
            ) from error
        return cache.known

    def _write(self, entries: list[TokenEntry]) -> None:
        try:
            write_durably(self._file, msgspec.json.format(msgspec.json.encode(TokenFile(entries)), indent=1))
        except OSError as error:
            raise _unusable(self._file, error) from error
        self._cache = _NOTHING


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def _unusable(file: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"the tokens in {file} cannot be used: {error.strerror}.",
        remedy="Correct the folder's owner and mode.",
    )
