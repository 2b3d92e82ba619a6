"""What commands share: options, types of options, acting on several jobs in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
import msgspec

from ingress.cli.submit_options import JSON
from ingress.core.bridge import Bridge, current_bridge
from ingress.core.lookup import JobHandle
from ingress.core.terminal import emit_json, note
from middleware.job.records import JobRecord
from ops.errors import BridgeError, InvalidJob, StoreUnreachable

json_option = click.option(JSON.flag, JSON.name, is_flag=True, help=JSON.text)


class ValueType(click.ParamType[Any]):
    """The type of an option whose value a function converts.

    Args:
        read: Converts the text; raises ``ValueError`` with the reason.
    """

    name = "value"

    def __init__(self, read: Callable[[str], Any]) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the converted value."""
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def note_if_spooled(job: JobHandle) -> None:
    """Write to stderr that a job is still in the spool, and what it waits for."""
    record = job.spooled()
    if record is not None:
        note(f"job {record.job_id} is {record.status}: {record.reason}")


def emit_jobs(records: Iterable[JobRecord]) -> None:
    """Write jobs to stdout as one JSON document."""
    emit_json({"jobs": [msgspec.Raw(record.to_json()) for record in records]})


def for_each(ids: Iterable[str], act: Callable[[str], int]) -> int:
    """Act on several jobs; report an error with one of them and go on with the next.

    Args:
        ids: Job ids as the user wrote them.
        act: Returns an exit code for one job.

    Returns:
        The first exit code that is not 0.
    """
    codes = []
    for job_id in ids:
        try:
            codes.append(act(job_id))
        except BridgeError as error:
            if isinstance(error, StoreUnreachable):
                raise
            note(str(error))
            codes.append(error.exit_code)
    return next((code for code in codes if code != 0), 0)


def require_job_type(name: str, *, in_history: bool = False) -> None:
    """Check the job type of a filter; while the store is unavailable, any name may be one.

    Args:
        name: The type.
        in_history: A type of which only the history has jobs will do.

    Raises:
        InvalidJob: It is unknown; the remedy names the nearest one.
    """
    bridge = current_bridge()
    try:
        bridge.reader.require_type(name)
    except StoreUnreachable:
        return  # the spool is listed without a store
    except InvalidJob:
        if not (in_history and _has_history(bridge, name)):
            raise


def _has_history(bridge: Bridge, job_type: str) -> bool:
    from middleware.archive.history import History

    path = bridge.loaded.workspace.history_db
    if not path.exists():
        return False
    with History(path) as history:
        return history.has_type(job_type)
