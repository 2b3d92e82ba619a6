"""What the commands share: options, notes on stderr, JSON on stdout, who commands, several jobs in a row."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import click

from ingress.cli.plain import emit_json, login_name, utf8
from ops.errors import BridgeError, StoreUnreachable

if TYPE_CHECKING:
    from middleware.job.records import JobRecord

__all__ = [
    "CANCEL_WAIT_S",
    "Ended",
    "emit_json",
    "exit_code_of",
    "explain",
    "for_each",
    "json_option",
    "login_name",
    "nearest",
    "note",
    "note_if_spooled",
    "require_job_type",
    "seconds",
    "seconds_or_zero",
    "signals_interrupt",
    "utf8",
]

#: A cancelled job has so long to end before we stop looking; the kill grace is 2 s by default.
CANCEL_WAIT_S = 5.0

json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document to stdout.")


def seconds(text: str) -> float:
    """Read a finite number of seconds above 0, for an option.

    Raises:
        click.BadParameter: It is none.
    """
    number = seconds_or_zero(text)
    if number == 0:
        raise click.BadParameter(f"{text!r} has to be above 0.")
    return number


def seconds_or_zero(text: str) -> float:
    """Read a finite number of seconds from 0, for an option.

    Raises:
        click.BadParameter: It is none.
    """
    try:
        number = float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a number of seconds.") from error
    if not math.isfinite(number) or number < 0:
        raise click.BadParameter(f"{text!r} has to be a finite number from 0.")
    return number


def note(text: str) -> None:
    """Tell the user something that is not the answer: one line on stderr."""
    from ingress.core.text import one_line

    click.echo(f"3ox: {one_line(text)}", err=True)


def note_if_spooled(part: str) -> None:
    """Say on stderr that a job lies in the spool and what it waits for; nothing of any other.

    Args:
        part: The job's id, or a unique part of it.
    """
    from ingress.core.bridge import current_bridge
    from ingress.core.spooled_jobs import spooled_record

    record = spooled_record(current_bridge(), part)
    if record is not None:
        note(f"job {record.job_id} is {record.status}: {record.reason}")


def exit_code_of(record: JobRecord) -> int:
    """Give 0 for a completed job and 1 for any other."""
    return 0 if record.status == "completed" else 1


def explain(record: JobRecord) -> None:
    """Say on stderr why a job did not complete; nothing if it did, or has not ended."""
    from ingress.core.text import short_id

    if record.error is not None:
        said = f"{record.error.message} {record.error.remedy}".strip()
    elif record.status == "cancelled":
        said = record.reason
    else:
        return
    note(f"job {short_id(record.job_id)} {record.status}: {said}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Give ``Did you mean 'x'?`` and a space, or nothing if no name is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def for_each(ids: Iterable[str], act: Callable[[str], int]) -> int:
    """Act on several jobs; an error with one is told and does not keep the others from their turn.

    Args:
        ids: Job ids as the user wrote them.
        act: Gives an exit code for one job.

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


class Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C asks this command to end; handled as Ctrl-C is.

    Attributes:
        signal_number: Which one.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(signal_number)


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Within this block, a closed terminal and a polite kill are heard as Ctrl-C is, to cancel the job."""

    def end(signal_number: int, frame: FrameType | None) -> None:
        del frame
        raise Ended(signal_number)

    kinds = [kind for kind in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(kind) is signal.SIG_DFL]
    for kind in kinds:
        signal.signal(kind, end)
    try:
        yield
    finally:
        for kind in kinds:
            signal.signal(kind, signal.SIG_DFL)


def require_job_type(name: str) -> None:
    """Check the name of a job type.

    Raises:
        InvalidJob: It is unknown; the remedy names the nearest one.
    """
    from middleware.job.types import JOB_TYPES

    JOB_TYPES.require(name, field="job_type")
