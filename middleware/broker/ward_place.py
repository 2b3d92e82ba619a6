"""Where the workers of a host and their warden find each other."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct

from ops.settings.load import LoadedSettings


class WardPlace(Struct, frozen=True):
    """Paths that belong to one workspace and one store.

    Attributes:
        socket: On which the warden listens.
        lock: Held by the one warden there is.
        vitals_dir: Of the workers' files.
    """

    socket: Path
    lock: Path
    vitals_dir: Path


def ward_place(loaded: LoadedSettings) -> WardPlace:
    """Give the paths for these settings: workers of another store have a warden of their own."""
    what = f"{loaded.store_url} {loaded.settings.key_prefix}"
    mark = hashlib.sha256(what.encode()).hexdigest()[:4]
    run_dir = loaded.workspace.run_dir
    return WardPlace(
        # As long as the store's socket, whose directory was chosen so that the path is not too long.
        socket=loaded.workspace.store_socket.with_name(f"w-{mark}.sock"),
        lock=run_dir / f"warden-{mark}.lock",
        vitals_dir=run_dir / f"vitals-{mark}",
    )
