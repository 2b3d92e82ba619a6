"""Keeps on disk what the store cannot be told while it is away; one small file for each update."""

from __future__ import annotations

from pathlib import Path

from ingress.telegram.pending_reply import Owed, decode_owed
from ops.durable import write_durably
from ops.errors import SpoolFull, StoreError
from ops.logs import get_logger

#: What is owed is bounded too, see ``ingress.telegram.replies``; what is given stays until the store is back.
FILES_MAX = 10_000
_SUFFIX = ".json"

log = get_logger(__name__)


class Shelf:
    """A folder of files ``UPDATE_ID.json``.

    Args:
        folder: Where they are; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = {int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit()}

    def __contains__(self, update_id: int) -> bool:
        return update_id in self._ids

    def __bool__(self) -> bool:
        return bool(self._ids)

    def put(self, owed: Owed) -> None:
        """Write or replace a file; it is on disk when this returns.

        Raises:
            SpoolFull: The disk is full, or there are 10,000 files.
        """
        if owed.update_id not in self._ids and len(self._ids) >= FILES_MAX:
            raise SpoolFull(
                f"the folder {self._folder} holds {FILES_MAX} replies.", remedy="Bring the store back."
            )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path(owed.update_id), owed.encode())
        except OSError as error:
            raise SpoolFull(
                f"the folder {self._folder} takes nothing: {error.strerror}.",
                remedy="Free disk space, or correct the folder's mode.",
            ) from error
        self._ids.add(owed.update_id)

    def take(self, update_id: int) -> Owed | None:
        """Read a file; None if there is none. One that cannot be read is set aside."""
        path = self._path(update_id)
        try:
            return decode_owed(path.read_bytes())
        except FileNotFoundError:
            self._ids.discard(update_id)
        except StoreError as error:
            self._ids.discard(update_id)
            path.replace(path.with_suffix(".refused"))
            log.warning("telegram.shelf_refused", update_id=update_id, reason=str(error))
        return None

    def remove(self, update_id: int) -> None:
        """Remove a file, if it is there."""
        if update_id in self._ids:
            self._path(update_id).unlink(missing_ok=True)
            self._ids.discard(update_id)

    def all(self) -> list[Owed]:
        """Read all files, by update."""
        return [owed for owed in map(self.take, sorted(self._ids)) if owed is not None]

    def _path(self, update_id: int) -> Path:
        return self._folder / f"{update_id}{_SUFFIX}"
