"""Claim complete files, links and empty folders; refuse pipes, devices, and links that lead elsewhere.

A file that cannot be claimed (no permission, a disk error) is retried with exponential backoff. After the
configured number of attempts it goes to ``failed/``; if that fails too, it stays and is retried once a
minute. Errors of the host (no space, no descriptors) are retried without limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingress.core.drop_folder import utf8_name
from ingress.core.file_claims import Claim
from ingress.station.claims import Claims
from ingress.station.retry import LONGEST_WAIT_S, is_host_error, wait_s
from ingress.station.scanner import DroppedFile, Left, open_folder
from ingress.station.stability import is_being_written
from ops.drop_folder_layout import link_problem
from ops.logs import get_logger

log = get_logger(__name__)


RETRY_REMEDY = "To try again, move the file back into the drop folder."
_INSTEAD = "Drop the file with the content itself."


class _Failure(NamedTuple):
    """A file that could not be claimed.

    Attributes:
        signature: State of the file; a changed file starts again without failures.
        failures: Failed attempts, which determine the wait.
        faults: Those of them that are due to the file, which are limited.
        due_s: When to try again, on the monotonic clock.
        reason: Why it could not be claimed.
    """

    signature: tuple[int, ...]
    failures: int
    faults: int
    due_s: float
    reason: str = ""


class Claimer:
    """Claims complete files.

    Args:
        claims: Folder of the claimed files.
        tries: Attempts per file before it goes to ``failed/``.
        clock: Monotonic seconds.
    """

    def __init__(self, claims: Claims, tries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._claims = claims
        self._tries = tries
        self._clock = clock
        self._failed: dict[str, _Failure] = {}
        self._being_written: set[str] = set()

    def claim(self, file: DroppedFile) -> Claim | None:
        """Claim one file.

        Returns:
            The claim; None if the file is being written, was refused, cannot be claimed now, or is gone.
        """
        path = file.path
        known = self._failed.get(path)
        if known is not None and known.signature == file.signature and known.due_s > self._clock():
            return None
        self._being_written.discard(path)
        try:
            problem = _problem(file)
            if problem:
                self._refuse(file, f"{utf8_name(file.name)!r} {problem}.", _INSTEAD)
                return None
            if file.is_file:
                parts = (file,) if file.note is None else (file, file.note)
                if any(is_being_written(part.path) for part in parts):
                    self._being_written.add(path)
                    return None
            claim = self._claims.claim(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._retry_later(file, error)
            return None
        self._failed.pop(path, None)
        return claim

    def forget_missing(self, files: Iterable[DroppedFile]) -> None:
        """Forget files that are gone.

        Args:
            files: All files of a scan.
        """
        if self._failed or self._being_written:
            present = {item.path for item in files}
            self._failed = {path: item for path, item in self._failed.items() if path in present}
            self._being_written &= present

    @property
    def next_s(self) -> float | None:
        """Seconds until the next retry; None if no file needs one."""
        due = [item.due_s for item in self._failed.values()]
        if self._being_written:
            # That a writer closes the file changes neither size nor time.
            return wait_s(1)
        return max(0.0, min(due) - self._clock()) if due else None

    @property
    def failed_count(self) -> int:
        """Number of files that cannot be claimed now."""
        return len(self._failed)

    def failed(self, root: str) -> list[Left]:
        """Return the files that cannot be claimed now, with the reason.

        Args:
            root: The drop folder.
        """
        return [
            Left(utf8_name(os.path.relpath(path, root)), item.reason) for path, item in self._failed.items()
        ]

    def _refuse(self, file: DroppedFile, reason: str, remedy: str = RETRY_REMEDY) -> None:
        claim = self._claims.claim(file)
        if claim is not None:
            refuse(self._claims, claim.job_id, reason, remedy)

    def _retry_later(self, file: DroppedFile, error: OSError) -> None:
        path, signature = file.path, file.signature
        known = self._failed.get(path)
        before = _Failure(signature, 0, 0, 0.0) if known is None or known.signature != signature else known
        failures, faults = before.failures + 1, before.faults + (0 if is_host_error(error) else 1)
        reason = f"{file.name!r} cannot be claimed: {error.strerror}."
        log.warning("station.put_off", path=path, tries=faults, reason=reason)
        due_s = self._clock() + wait_s(failures)
        if faults >= self._tries and faults > before.faults:
            try:
                self._refuse(file, f"{reason} Attempts: {faults}.")
            except OSError as second_error:
                # Retried, since a change of permissions changes neither size nor time of the file.
                log.error("station.stuck", path=path, reason=reason, error=str(second_error))  # noqa: TRY400
                due_s = self._clock() + LONGEST_WAIT_S
            else:
                self._failed.pop(path, None)
                return
        self._failed[path] = _Failure(
            signature, failures, faults, due_s, f"cannot be claimed: {error.strerror}"
        )


def _problem(file: DroppedFile) -> str:
    """Return why an entry is refused whatever is in it; empty if it is not."""
    if file.is_file or file.is_folder:
        return ""
    if not file.is_link:
        return "is not a regular file but a pipe, a socket or a device"
    try:
        with open_folder(file) as folder:
            target = os.readlink(file.name, dir_fd=folder)
    except OSError:
        # Gone or replaced since the scan, which claiming finds out too.
        return ""
    problem = link_problem(file.folder, target)
    return f"is a symbolic link, and {problem}; it is not followed" if problem else ""


def refuse(claims: Claims, job_id: str, reason: str, remedy: str = RETRY_REMEDY) -> None:
    """Move a claimed file that cannot become a job to ``failed/``, with the reason.

    Args:
        claims: Folder of the claimed files.
        job_id: Job id of the claim.
        reason: One or two sentences.
        remedy: What to do about it, one sentence.
    """
    text = f"{reason}\n{remedy}\n"
    try:
        place = claims.fail(job_id, text)
    except OSError as error:
        log.error("station.stuck", job_id=job_id, reason=reason, error=str(error))  # noqa: TRY400 (expected)
        return
    log.warning("station.refused", job_id=job_id, place=os.fspath(place) if place else "", reason=reason)
