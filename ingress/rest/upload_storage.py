"""Write uploaded files into the drop folder: under a temporary name, then under their own.

The sender's file name is not trusted: only its last part is used, control characters are replaced, and a name
that the station ignores is changed. Existing files are never replaced.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from ingress.core.drop_folder import AcceptedNames, publish
from ingress.core.http.problems import ApiProblem
from ops.files import sync_folder, write_all
from ops.settings.load import LoadedSettings

#: File systems allow 255 bytes; the rest is for a number and the suffix of the note.
_NAME_MAX_BYTES = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UploadFolder:
    """The drop folder as the target of uploads.

    Args:
        loaded: Settings and workspace.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self.folder = loaded.workspace.inbox
        self._names = AcceptedNames(loaded.settings.station.ignore)

    def safe_name(self, given: str) -> str:
        """Return a name that the station accepts, as close as possible to the one given."""
        name = _CONTROL.sub("_", given.replace("\\", "/").rpartition("/")[2]).strip()
        stem, dot, suffix = name.rpartition(".")
        if len(os.fsencode(name)) > _NAME_MAX_BYTES:
            ending = dot + suffix if len(os.fsencode(suffix)) < 20 and stem else ""  # noqa: PLR2004
            name = _cut(name, _NAME_MAX_BYTES - len(os.fsencode(ending))) + ending
        if name.strip(".") == "":
            name = f"upload-{secrets.token_hex(4)}"
        return self._names.accepted(name, "upload")

    def draft(self) -> Path:
        """Return a temporary path, which the station ignores."""
        return self.folder / f".upload-{secrets.token_hex(8)}.part"

    def settle(self, draft: Path, name: str, note: str) -> str:
        """Rename a draft to its final name, its note first.

        Args:
            draft: The complete file on disk.
            name: Name from ``safe_name``.
            note: The sender's note; empty for none.

        Returns:
            The final name, with a number if the name was taken.

        Raises:
            ApiProblem: Too many files have this name.
        """
        stem, dot, suffix = name.rpartition(".")
        base, ending = (stem, dot + suffix) if stem else (name, "")
        try:
            final = publish(draft, lambda number: name if number == 1 else f"{base} ({number}){ending}", note)
        except FileExistsError as error:
            raise ApiProblem(
                409, "name-taken", f"There are too many files named {name!r}.", remedy="Choose another name."
            ) from error
        sync_folder(self.folder)
        return final.name


class UploadDraft:
    """A file while it is received.

    Args:
        path: Temporary path.

    Attributes:
        size_bytes: Bytes received.
        sha256: Hash of these bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def sha256(self) -> str:
        """SHA-256 of the received bytes, in hexadecimal."""
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> None:
        """Append received data."""
        write_all(self._fd, data)
        self._sha256.update(data)
        self.size_bytes += len(data)

    def close(self) -> None:
        """Sync the file to disk: an accepted upload survives a power cut."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove the file, unless it has been renamed to its final name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.path.unlink(missing_ok=True)


def _cut(name: str, max_bytes: int) -> str:
    return os.fsencode(name)[:max_bytes].decode(errors="ignore")
