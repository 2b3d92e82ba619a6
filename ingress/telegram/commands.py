"""The commands of the bot: ``/status``, ``/jobs``, ``/job``, ``/cancel``, ``/run``, ``/help``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ingress.core import control
from ingress.core.bridge import Bridge
from ingress.core.lookup import find
from ingress.core.spooled_jobs import entry_record, find_entry
from ingress.core.status_report import overview
from ingress.telegram import messages
from ops.errors import StoreUnreachable, UsageProblem

HELP = """Send a message to ask a question; the conversation is the session of this chat.
Send a document or a photo to put it into the drop folder; the caption becomes its note.

/run PROJECT TASK - submit a task for a project
/jobs [N] - list the latest jobs
/job ID - show one job
/cancel ID - cancel a job
/status - show store, queue and workers
/help - show this help

An ID can be shortened to any unique prefix or suffix."""

_LISTED, _LISTED_MAX = 10, 40


class Sender(NamedTuple):
    """Sender of a command."""

    chat_id: int
    user_id: int


def status(bridge: Bridge, words: str, sender: Sender) -> str:
    """Return the state of the bridge."""
    del words, sender
    return messages.bridge_state(overview(bridge))


def jobs(bridge: Bridge, words: str, sender: Sender) -> str:
    """Return a list of the latest jobs."""
    del sender
    if words and not words.isdecimal():
        raise UsageProblem(f"{words!r} is not a number.", remedy="Write /jobs or /jobs 20.")
    limit = min(int(words[:4]), _LISTED_MAX) if words else _LISTED
    return messages.job_list(bridge.reader.page(limit=max(1, limit)))


def job(bridge: Bridge, words: str, sender: Sender) -> str:
    """Return all details of a job."""
    del sender
    return messages.one_job(find(bridge, _job_id(words, "/job")).record())


def spooled_job(bridge: Bridge, words: str, sender: Sender) -> str:
    """Return all details of a job in the spool, without a call to the store.

    Raises:
        StoreUnreachable: The job is not in the spool.
    """
    del sender
    unavailable = StoreUnreachable("The store is unavailable.")
    entry = find_entry(bridge, _job_id(words, "/job"))
    record = None if entry is None else entry_record(bridge, entry, unavailable)
    if record is None:
        raise unavailable
    return messages.one_job(record)


def cancel(bridge: Bridge, words: str, sender: Sender) -> str:
    """Cancel a job and return the result."""
    reply = control.cancel(
        bridge, _job_id(words, "/cancel"), f"cancelled through Telegram by {sender.user_id}"
    )
    return {
        "cancelled": f"Cancelled: {reply.job_id}.",
        "cancelling": f"Stopping: {reply.job_id}.",
    }.get(reply.outcome, f"Job {reply.job_id} has already finished: {reply.status}.")


def help_text(bridge: Bridge, words: str, sender: Sender) -> str:
    """Return the help text."""
    del bridge, words, sender
    return HELP


def _job_id(words: str, command: str) -> str:
    if not words or " " in words:
        raise UsageProblem(f"{command} needs one job id.", remedy=f"Write {command} ID; /jobs lists the ids.")
    return words


#: All commands except ``/run``, which submits a job (``ingress.telegram.update_handler``).
COMMANDS: dict[str, Callable[[Bridge, str, Sender], str]] = {
    "status": status,
    "jobs": jobs,
    "job": job,
    "cancel": cancel,
    "help": help_text,
    "start": help_text,
}
#: Commands that need no store; used while it is unavailable, when each call would wait for the timeout.
STORELESS_COMMANDS: dict[str, Callable[[Bridge, str, Sender], str]] = {
    "job": spooled_job,
    "help": help_text,
    "start": help_text,
}
