"""Write an uploaded file into the drop folder while it is received, under a temporary name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ops.files import write_all


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
        """Remove the file, unless it has been claimed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.path.unlink(missing_ok=True)
