"""API tokens: created, stored hashed, checked in constant time, revoked.

They are stored in ``.3ox/keys/tokens.json``, which is replaced as a whole. A token is ``3ox_ID_SECRET``: the
id is public and identifies the entry, of the whole only a SHA-256 is stored. The secret has 256 random bits,
so a slow hash is not needed.
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

#: Each scope includes those before it.
SCOPES: tuple[Scope, ...] = ("view", "submit", "admin")
#: Name of the token in the setting ``api_token``.
SETTING_NAME = "api_token"
#: Name of the token that is created when there is none.
FIRST = "first"
#: Limit against scripts that create tokens in a loop.
TOKENS_MAX = 1000
#: Timeout for the lock; a change takes a few milliseconds, unless its process is stopped.
_LOCK_WITHIN_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"3ox_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


class Principal(Struct, frozen=True):
    """An authenticated client.

    Attributes:
        name: Name of its token.
        scope: Scope of its token.
    """

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        """Return whether the token's scope includes this one."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class TokenEntry(Struct, frozen=True, kw_only=True):
    """The stored form of a token.

    Attributes:
        token_id: Its public part.
        name: Unique name, such as that of its user or client.
        scope: Its scope.
        sha256: SHA-256 of the whole token.
        created_at: Creation time, UTC.
    """

    token_id: str
    name: str
    scope: Scope
    sha256: str
    created_at: str


class TokenFile(Struct, frozen=True):
    """Content of the token file."""

    tokens: list[TokenEntry] = []
    version: int = 1


class _TokenFileVersion(NamedTuple):
    """Tokens of one version of the file, and what identifies that version."""

    stamp: tuple[int, int, int] | None
    known: dict[str, TokenEntry]


_NOTHING = _TokenFileVersion(None, {})


class Tokens:
    """The API tokens of a workspace; safe to use from several threads and processes.

    Args:
        workspace: The workspace.
        setting: The setting ``api_token``: a token of scope admin; empty for none.
    """

    def __init__(self, workspace: Workspace, setting: str = "") -> None:
        self._file = workspace.keys_dir / "tokens.json"
        self._setting_sha256 = _digest(setting) if setting else ""
        # One attribute, assigned at once: between two assignments, another thread would see old tokens as
        # new.
        self._cache = _NOTHING

    def entries(self) -> list[TokenEntry]:
        """Return all tokens, oldest first.

        Raises:
            SettingsError: The file cannot be read.
        """
        return list(self._read().values())

    def any(self) -> bool:
        """Return whether there is any token, including that of the setting."""
        return self._setting_sha256 != "" or bool(self._read())

    def make(self, name: str, scope: Scope) -> str:
        """Create a token.

        Args:
            name: Unique name, such as that of its user or client.
            scope: Its scope.

        Returns:
            The token; it is not stored and cannot be shown again.

        Raises:
            UsageProblem: The name is in use or not valid.
            SettingsError: The file cannot be written.
        """
        if _NAME.fullmatch(name) is None or name == SETTING_NAME:
            raise UsageProblem(
                f"The token name {name!r} is not valid.",
                remedy="Use at most 64 letters, digits and . _ -, beginning with a letter or digit.",
            )
        with self._changing():
            return self._add(name, scope)

    def make_first(self) -> str | None:
        """Create a token of scope admin if there are no tokens.

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
                f"The token {name!r} already exists.",
                remedy=f"Choose another name, or revoke it with '3ox token revoke {name}'.",
            )
        if len(entries) >= TOKENS_MAX:
            raise UsageProblem(
                f"The limit of {TOKENS_MAX} tokens is reached.",
                remedy="Revoke some with '3ox token revoke NAME'.",
            )
        token_id = secrets.token_hex(4)
        token = f"3ox_{token_id}_{secrets.token_urlsafe(32)}"
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = TokenEntry(token_id=token_id, name=name, scope=scope, sha256=_digest(token), created_at=at)
        self._write([*entries, entry])
        return token

    def revoke(self, name: str) -> TokenEntry:
        """Revoke a token; takes effect at once.

        Args:
            name: Its name or id.

        Raises:
            UsageProblem: The token does not exist.
        """
        with self._changing():
            entries = self.entries()
            found = next((entry for entry in entries if name in {entry.name, entry.token_id}), None)
            if found is None:
                raise UsageProblem(f"Unknown token {name!r}.", remedy="'3ox token list' lists all tokens.")
            self._write([entry for entry in entries if entry is not found])
            return found

    def check(self, token: str) -> Principal | None:
        """Authenticate a token.

        Returns:
            Its principal, or None if the token is not valid.

        Raises:
            SettingsError: The file cannot be read.
        """
        given = _digest(token)
        # Both are always compared, so that the time taken reveals nothing about either.
        is_setting = hmac.compare_digest(given, self._setting_sha256 or _digest(""))
        parts = _TOKEN.fullmatch(token)
        entry = None if parts is None else self._read().get(parts[1])
        is_kept = hmac.compare_digest(given, _digest("") if entry is None else entry.sha256)
        if is_setting and self._setting_sha256 and token:
            return Principal(SETTING_NAME, "admin")
        return Principal(entry.name, entry.scope) if is_kept and entry is not None else None

    def holds(self, principal: Principal) -> bool:
        """Return whether a principal authenticated earlier is still valid: its token exists with that scope.

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
        """Hold the lock for changing the file."""
        lock = self._file.with_suffix(".lock")
        try:
            fd = take_lock(lock, within_s=_LOCK_WITHIN_S)
        except TimeoutError as error:
            raise SettingsError(
                f"Another process has locked the tokens in {self._file} for {_LOCK_WITHIN_S:g} s.",
                remedy="End it (a suspended '3ox token', for example) and try again.",
            ) from error
        except OSError as error:
            raise _unusable(self._file, error) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            os.close(fd)

    def _read(self) -> dict[str, TokenEntry]:
        """Return the tokens by id; a changed file is read again, so that revoking works at once."""
        cache = self._cache
        try:
            found = self._file.stat()
            # Each version written here has a new inode; mtime and size detect changes by other programs.
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != cache.stamp:
                if stat.S_IMODE(found.st_mode) & 0o077:
                    self._file.chmod(0o600)
                # Read after the stat: content newer than the stamp is read again by the next call.
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
                f"{self._file} is not valid: {error}.",
                remedy="Delete it and create new tokens with '3ox token make NAME'.",
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
        f"The tokens in {file} cannot be used: {error.strerror}.",
        remedy="Check the folder's owner and permissions.",
    )
