"""Lays a file that comes over the network into the drop folder: under a temporary name, then its own.

The name is the sender's and not to be trusted: only its last part counts, control characters are replaced,
and one that the station would leave alone is changed. No file that is there already is ever replaced.
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

#: A file name has room for 255 bytes; some are left for a number and the note's suffix.
_NAME_MAX_BYTES = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UploadFolder:
    """The drop folder, for files that come over the network.

    Args:
        loaded: Says where it is and what the station leaves alone.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self.folder = loaded.workspace.inbox
        self._names = AcceptedNames(loaded.settings.station.ignore)

    def safe_name(self, given: str) -> str:
        """Give a name under which the station takes the file, as near as can be to the one given."""
        name = _CONTROL.sub("_", given.replace("\\", "/").rpartition("/")[2]).strip()
        stem, dot, suffix = name.rpartition(".")
        if len(os.fsencode(name)) > _NAME_MAX_BYTES:
            ending = dot + suffix if len(os.fsencode(suffix)) < 20 and stem else ""  # noqa: PLR2004
            name = _cut(name, _NAME_MAX_BYTES - len(os.fsencode(ending))) + ending
        if name.strip(".") == "":
            name = f"upload-{secrets.token_hex(4)}"
        return self._names.accepted(name, "upload")

    def draft(self) -> Path:
        """Give a temporary name, which no station takes."""
        return self.folder / f".upload-{secrets.token_hex(8)}.part"

    def settle(self, draft: Path, name: str, note: str) -> str:
        """Give a draft its name, its note first.

        Args:
            draft: Whole, on disk.
            name: From ``safe_name``.
            note: What the sender says of it; empty for nothing.

        Returns:
            The name that it got: with a number if there is a file of this one.

        Raises:
            ApiProblem: The folder takes no more.
        """
        stem, dot, suffix = name.rpartition(".")
        base, ending = (stem, dot + suffix) if stem else (name, "")
        try:
            final = publish(draft, lambda number: name if number == 1 else f"{base} ({number}){ending}", note)
        except FileExistsError as error:
            raise ApiProblem(
                409, "name-taken", f"there are too many files named {name!r}.", remedy="Choose another name."
            ) from error
        sync_folder(self.folder)
        return final.name


class UploadDraft:
    """A file that is being received.

    Args:
        path: Its temporary name.

    Attributes:
        size_bytes: What has come.
        sha256: Of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> None:
        """Add what came."""
        write_all(self._fd, data)
        self._sha256.update(data)
        self.size_bytes += len(data)

    def close(self) -> None:
        """Force it to disk: what was answered as taken survives a power cut."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove it, if it has not got its name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.path.unlink(missing_ok=True)


def _cut(name: str, most_bytes: int) -> str:
    return os.fsencode(name)[:most_bytes].decode(errors="ignore")
