"""Takes what has settled in the drop folder: files are claimed, what is no file is refused.

What cannot be taken now (no right to read it, an error of the disk) is tried again with a backoff; after a
bounded number of tries it goes to ``failed/``, and if even that is not possible it stays and is looked at
once a minute. What is the machine's doing (no room, no descriptors) is waited out, and uses up no try.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ingress.station.claims import Claim, Claims
from ingress.station.inbox import Found, folder_of
from ingress.station.stability import is_being_written
from ingress.station.submission import LONGEST_WAIT_S, is_hosts_doing, refuse, wait_s
from ops.logs import get_logger

log = get_logger(__name__)


class _Trouble(NamedTuple):
    """Something that could not be taken; ``faults`` of those ``waits`` were its own fault."""

    signature: tuple[int, ...]
    waits: int
    faults: int
    due_s: float


class Taking:
    """Claims settled files.

    Args:
        claims: Where they go.
        tries: A file is tried so often.
        clock: Monotonic seconds.
    """

    def __init__(self, claims: Claims, tries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._claims = claims
        self._tries = tries
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}
        self._busy: set[str] = set()

    def take(self, found: Found) -> Claim | None:
        """Take one thing out of the drop folder.

        Returns:
            The claim; None if it was not taken: not whole yet, refused, in trouble, or gone.
        """
        path = found.path
        known = self._troubles.get(path)
        if known is not None and known.signature == found.signature and known.due_s > self._clock():
            return None
        self._busy.discard(path)
        try:
            if not found.is_file:
                self._turn_away(found)
                return None
            parts = (found,) if found.note is None else (found, found.note)
            if any(is_being_written(part.path) for part in parts):
                self._busy.add(path)
                return None
            claim = self._claims.take(found)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._put_off(found, error)
            return None
        self._troubles.pop(path, None)
        return claim

    def forget(self, files: Iterable[Found]) -> None:
        """Forget what is not there any more.

        Args:
            files: All that is there.
        """
        if self._troubles or self._busy:
            there = {item.path for item in files}
            self._troubles = {path: item for path, item in self._troubles.items() if path in there}
            self._busy &= there

    @property
    def next_s(self) -> float | None:
        """After how many seconds something may be taken that could not be; None if there is nothing."""
        due = [item.due_s for item in self._troubles.values()]
        if self._busy:
            # A writer's end shows in no file's size or time.
            return wait_s(1)
        return max(0.0, min(due) - self._clock()) if due else None

    @property
    def in_trouble(self) -> int:
        """How many cannot be taken now."""
        return len(self._troubles)

    def _turn_away(self, found: Found) -> None:
        if found.is_link and self._leads_to_a_dropped_file(found):
            # What it points to is taken under its own name; the same content twice would be answered so too.
            with folder_of(found) as folder:
                os.unlink(found.name, dir_fd=folder)
            log.info("station.link_dropped", path=found.path)
            return
        reason = (
            f"{found.name!r} is a symbolic link that points out of the drop folder; it is not followed."
            if found.is_link
            else f"{found.name!r} is no regular file but a pipe, a socket or a device."
        )
        self._refuse(found, reason)

    def _leads_to_a_dropped_file(self, found: Found) -> bool:
        root, real = os.path.realpath(found.root), os.path.realpath(found.path)
        hidden = any(part.startswith(".") for part in Path(os.path.relpath(real, root)).parts)
        return real.startswith(root + os.sep) and not hidden and os.path.isfile(real)  # noqa: PTH113

    def _refuse(self, found: Found, reason: str) -> None:
        claim = self._claims.take(found)
        if claim is not None:
            refuse(self._claims, claim.job_id, reason)

    def _put_off(self, found: Found, error: OSError) -> None:
        path, signature = found.path, found.signature
        known = self._troubles.get(path)
        before = _Trouble(signature, 0, 0, 0.0) if known is None or known.signature != signature else known
        waits, faults = before.waits + 1, before.faults + (0 if is_hosts_doing(error) else 1)
        reason = f"{found.name!r} cannot be taken: {error.strerror}."
        log.warning("station.put_off", path=path, tries=faults, reason=reason)
        due_s = self._clock() + wait_s(waits)
        if faults >= self._tries and faults > before.faults:
            try:
                self._refuse(found, f"{reason} It was tried {faults} times.")
            except OSError as worse:
                # Rights that are given back show in no file's size or time, so it is not left for good.
                log.error("station.stuck", path=path, reason=reason, error=str(worse))  # noqa: TRY400
                due_s = self._clock() + LONGEST_WAIT_S
            else:
                self._troubles.pop(path, None)
                return
        self._troubles[path] = _Trouble(signature, waits, faults, due_s)
