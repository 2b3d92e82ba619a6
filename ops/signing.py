"""Ed25519 keys that sign the ledger: created on first use, rotated with an overlap, never leaving this host.

A key is a file ``ledger-ID.json`` of mode 0600. The next key is created and published one day before it
signs, so that holders of the public keys can update their copies. One day after it has taken over, the
private part of the previous key is erased; the public part is kept, because its signatures remain.
"""

from __future__ import annotations

import base64
import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ops.errors import SettingsError
from ops.files import write_durably

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Time between the publication of a new key and its first use, and between the last use of an old key and
#: the removal of its private part.
_OVERLAP_S = 86_400.0
_PATTERN = "ledger-*.json"
_ID_LENGTH = 16


class KeyFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Content of a key file.

    Attributes:
        kid: Key id: the first 16 hexadecimal digits of the SHA-256 of its public part.
        public: Public part, 32 bytes in base64.
        private: Private part, 32 bytes in base64; empty once it has been erased.
        created_s: Creation time, in seconds since 1970.
        active_s: Time from which it signs, in seconds since 1970.
    """

    kid: str
    public: str
    created_s: float
    active_s: float
    private: str = ""


class PublicKey(Struct, frozen=True, kw_only=True):
    """Public part of a signing key.

    Attributes:
        kid: Key id, as in the field ``key`` of a ledger line.
        alg: Always ``Ed25519``.
        public: The 32 bytes of the key in base64.
        created_at: Creation time, in seconds since 1970.
        active_at: Time from which it signs, in seconds since 1970.
        signs: Whether it signs new lines now.
    """

    kid: str
    alg: str
    public: str
    created_at: float
    active_at: float
    signs: bool


class Signer(Struct, frozen=True):
    """The key that signs now.

    Attributes:
        kid: Key id.
    """

    kid: str
    _private: Ed25519PrivateKey

    def sign(self, data: bytes) -> str:
        """Return the signature in base64."""
        return base64.b64encode(self._private.sign(data)).decode()


class KeyRing:
    """All keys of a workspace.

    Args:
        folder: Directory of the key files.
        lifetime_s: Age at which a key is rotated, in seconds; 0 never rotates.
    """

    def __init__(self, folder: Path, *, lifetime_s: float = 0.0) -> None:
        self._folder = folder
        self._lifetime_s = lifetime_s
        self._public: dict[str, Ed25519PublicKey] = {}

    def signer(self, now_s: float) -> Signer:
        """Return the key that signs now; creates the first one, and the next one when it is due.

        Must be called by one process at a time.

        Args:
            now_s: Current time, in seconds since 1970.

        Raises:
            SettingsError: The key cannot be read or created, or is readable by others.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        keys = self._read()
        if not keys:
            keys = [self._make(now_s, active_s=now_s)]
        newest = keys[-1]
        if self._lifetime_s and now_s - newest.active_s > self._lifetime_s:
            keys.append(self._make(now_s, active_s=now_s + _OVERLAP_S))
        current = _current(keys, now_s)
        if now_s - current.active_s > _OVERLAP_S:
            for key in keys:
                if key.private and key.active_s < current.active_s:
                    self._write(msgspec.structs.replace(key, private=""))
        return Signer(current.kid, Ed25519PrivateKey.from_private_bytes(base64.b64decode(current.private)))

    def rotate(self, now_s: float) -> PublicKey:
        """Create the next key; it signs after the overlap.

        Raises:
            SettingsError: It cannot be created.
        """
        keys = self._read()
        return _public(self._make(now_s, active_s=now_s + (_OVERLAP_S if keys else 0.0)), signs=not keys)

    def public_keys(self, now_s: float) -> list[PublicKey]:
        """Return all keys, oldest first, including those that no longer sign or do not sign yet.

        Raises:
            SettingsError: A key cannot be read.
        """
        keys = self._read()
        current = _current(keys, now_s).kid if any(key.private for key in keys) else ""
        return [_public(key, signs=key.kid == current) for key in keys]

    def verify(self, kid: str, signature: str, data: bytes) -> bool:
        """Return whether a signature was made by one of our keys."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if kid not in self._public:
            for key in self._read():
                raw = base64.b64decode(key.public)
                if _kid(raw) == key.kid:
                    self._public[key.kid] = Ed25519PublicKey.from_public_bytes(raw)
        if kid not in self._public:
            return False
        try:
            self._public[kid].verify(base64.b64decode(signature, validate=True), data)
        except (InvalidSignature, ValueError):
            return False
        return True

    def knows(self, kid: str) -> bool:
        """Return whether there is a key with this id."""
        return any(key.kid == kid for key in self._read())

    def _read(self) -> list[KeyFile]:
        keys = []
        for file in self._folder.glob(_PATTERN):
            try:
                mode = file.stat().st_mode
                data = file.read_bytes()
                key = msgspec.json.decode(data, type=KeyFile)
            except (OSError, msgspec.MsgspecError) as error:
                raise SettingsError(
                    f"The signing key {file} cannot be read: {error}.",
                    remedy="Check its permissions, or restore it from a backup.",
                ) from error
            if key.private and stat.S_IMODE(mode) & 0o077:
                raise SettingsError(
                    f"The signing key {file} is readable by others.", remedy=f"Run 'chmod 600 {file}'."
                )
            keys.append(key)
        return sorted(keys, key=lambda key: (key.active_s, key.kid))

    def _make(self, now_s: float, *, active_s: float) -> KeyFile:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        key = KeyFile(
            kid=_kid(public),
            public=base64.b64encode(public).decode(),
            private=base64.b64encode(private.private_bytes_raw()).decode(),
            created_s=now_s,
            active_s=active_s,
        )
        self._write(key)
        return key

    def _write(self, key: KeyFile) -> None:
        file = self._folder / f"ledger-{key.kid}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(file, msgspec.json.encode(key))
        except OSError as error:
            raise SettingsError(
                f"The signing key {file} cannot be written: {error.strerror}.",
                remedy="Free disk space, or check the folder's permissions.",
            ) from error


def _kid(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:_ID_LENGTH]


def _current(keys: list[KeyFile], now_s: float) -> KeyFile:
    """Return the key that signs: the latest active one, or the first if the clock was set back."""
    complete = [key for key in keys if key.private]
    if not complete:
        raise SettingsError(
            "No signing key has its private part.", remedy="Restore .3ox/keys from a backup, or remove it."
        )
    active = [key for key in complete if key.active_s <= now_s]
    return active[-1] if active else complete[0]


def _public(key: KeyFile, *, signs: bool) -> PublicKey:
    return PublicKey(
        kid=key.kid,
        alg="Ed25519",
        public=key.public,
        created_at=key.created_s,
        active_at=key.active_s,
        signs=signs,
    )
