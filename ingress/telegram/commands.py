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

HELP = """Write anything: it is answered as a question, in this chat's own session.
Send a document or a photo: it goes into the drop folder, its caption as a note.

/run PROJECT TASK - hand a task to a project
/jobs [N] - the latest jobs
/job ID - one job in full
/cancel ID - cancel a job
/status - store, queue, workers
/help - this text

An ID may be shortened to any part of it at its beginning or end that only one job has."""

_LISTED, _LISTED_MAX = 10, 40


class Asker(NamedTuple):
    """Who gives a command: chat and user."""

    chat_id: int
    user_id: int


def status(bridge: Bridge, words: str, asker: Asker) -> str:
    """Tell the state of the bridge."""
    del words, asker
    return messages.bridge_state(overview(bridge))


def jobs(bridge: Bridge, words: str, asker: Asker) -> str:
    """List the latest jobs."""
    del asker
    if words and not words.isdecimal():
        raise UsageProblem(f"{words!r} is not a number.", remedy="Write /jobs or /jobs 20.")
    limit = min(int(words[:4]), _LISTED_MAX) if words else _LISTED
    return messages.job_list(bridge.reader.page(limit=max(1, limit)))


def job(bridge: Bridge, words: str, asker: Asker) -> str:
    """Describe one job."""
    del asker
    return messages.one_job(find(bridge, _the_id(words, "/job")).record())


def job_on_disk(bridge: Bridge, words: str, asker: Asker) -> str:
    """Describe one job that lies in the spool, without a question to the store.

    Raises:
        StoreUnreachable: It is not there; only the store could tell.
    """
    del asker
    away = StoreUnreachable("it is away.")
    entry = find_entry(bridge, _the_id(words, "/job"))
    record = None if entry is None else entry_record(bridge, entry, away)
    if record is None:
        raise away
    return messages.one_job(record)


def cancel(bridge: Bridge, words: str, asker: Asker) -> str:
    """Cancel a job."""
    reply = control.cancel(
        bridge, _the_id(words, "/cancel"), f"cancelled through Telegram by {asker.user_id}"
    )
    return {
        "cancelled": f"{reply.job_id} is cancelled.",
        "cancelling": f"{reply.job_id} is being stopped.",
    }.get(reply.outcome, f"{reply.job_id} has ended already: {reply.status}.")


def help_text(bridge: Bridge, words: str, asker: Asker) -> str:
    """List the commands."""
    del bridge, words, asker
    return HELP


def _the_id(words: str, command: str) -> str:
    if not words or " " in words:
        raise UsageProblem(f"{command} wants one job id.", remedy=f"Write {command} ID; /jobs lists them.")
    return words


#: Commands that are answered at once; ``/run`` makes a job, see ``ingress.telegram.update_handler``.
AT_ONCE: dict[str, Callable[[Bridge, str, Asker], str]] = {
    "status": status,
    "jobs": jobs,
    "job": job,
    "cancel": cancel,
    "help": help_text,
    "start": help_text,
}
#: What is answered while the store is away: each question to it would cost its time-out.
STORELESS: dict[str, Callable[[Bridge, str, Asker], str]] = {
    "job": job_on_disk,
    "help": help_text,
    "start": help_text,
}
