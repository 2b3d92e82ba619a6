"""What stays in the drop folder: named in a job, in ``3ox status`` and in ``3ox doctor``."""

from __future__ import annotations

import msgspec

from ingress.core.file_claims import Claim
from ingress.station.scanner import Left, Scan
from ops.logs import get_logger

#: Entries named in one job, and in the daemon's report.
_NAMED_MAX = 20

log = get_logger(__name__)


class LeftEntries:
    """The entries that the last scan left where they are.

    Attributes:
        foreign: What was put into the station's own folders.
        failed: What cannot be claimed now.
    """

    def __init__(self) -> None:
        self.foreign: list[Left] = []
        self.failed: list[Left] = []
        self._entries: list[Left] = []
        self._scanned = 0
        #: Entries that have been logged; and named in a job.
        self._logged: set[str] = set()
        self._told: set[str] = set()
        #: Topmost folder -> its entries that no job has named.
        self._untold: dict[str, list[Left]] = {}

    @property
    def count(self) -> int:
        """Number of entries."""
        return self._scanned + len(self.foreign) + len(self.failed)

    def names(self) -> str:
        """Return the first entries with their reasons, as a JSON list."""
        first = [*self.failed[:_NAMED_MAX], *self.foreign[:_NAMED_MAX], *self._entries[:_NAMED_MAX]]
        return msgspec.json.encode([str(item) for item in first[:_NAMED_MAX]]).decode()

    def update(self, scan: Scan) -> None:
        """Use the result of a scan; log entries that have not been logged."""
        self._entries, self._scanned = scan.left, scan.left_count
        present = {item.path for item in scan.left}
        fresh = [item for item in scan.left if item.path not in self._logged]
        if fresh:
            names = [str(item) for item in fresh[:_NAMED_MAX]]
            log.info("station.left", entries=len(fresh), names=names)
        self._logged = present
        self._told &= present
        self._untold = {}
        for item in scan.left:
            top, slash, _ = item.path.partition("/")
            if slash and item.path not in self._told:
                self._untold.setdefault(top, []).append(item)

    def told(self, claim: Claim) -> Claim:
        """Return a claim with the entries of its topmost folder that no job has named before."""
        untold = self._untold.pop(claim.folder.partition("/")[0], []) if claim.folder else []
        if not untold:
            return claim
        self._told.update(item.path for item in untold)
        names = [str(item) for item in untold[:_NAMED_MAX]]
        if len(untold) > _NAMED_MAX:
            names.append(f"{len(untold) - _NAMED_MAX} more")
        return claim._replace(left=tuple(names))
