"""Makes jobs from the words of a command line and hands them in: the same for click and for the short way."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from ingress.cli.plain import emit_json, login_name, utf8
from ingress.core.bridge import current_bridge
from middleware.job.schema import Job, make_job
from ops.errors import StoreTimeout, StoreUnreachable, UsageProblem

SOURCE = "cli"


def question(words: Sequence[str], **fields: Any) -> Job:
    """Make an ``ask`` job.

    Args:
        words: Of the prompt.
        **fields: ``system``, ``provider``, ``model`` of the payload, ``session_id``.
    """
    session_id = fields.pop("session_id", None)
    payload = {"prompt": utf8(" ".join(words), "the prompt"), **fields}
    return make_job("ask", payload, source=SOURCE, actor=login_name(), session_id=session_id)


def task(project: str, words: Sequence[str], **fields: Any) -> Job:
    """Make a ``task.custom`` job.

    Args:
        project: A table of 3ox.toml.
        words: Of the task.
        **fields: Of the job.

    Raises:
        UnknownProject: There is no such table.
    """
    current_bridge().admission.project(project)
    payload = {"task": utf8(" ".join(words), "the task")}
    return make_job("task.custom", payload, source=SOURCE, actor=login_name(), project=project, **fields)


def command(argv: Sequence[str], *, cwd: str | None = None, timeout_s: float | None = None) -> Job:
    """Make a ``shell.cmd`` job that runs where we are.

    Args:
        argv: The command.
        cwd: Where it runs, relative to the current directory.
        timeout_s: Bound on one attempt.
    """
    payload = {"argv": [utf8(word, "the command") for word in argv], "cwd": _directory(cwd)}
    return make_job("shell.cmd", payload, source=SOURCE, actor=login_name(), timeout_seconds=timeout_s)


def _directory(given: str | None) -> str:
    try:
        here = os.getcwd()  # noqa: PTH109 (a str is wanted, and pathlib is slow to import)
    except FileNotFoundError as error:
        raise UsageProblem("the current directory is gone.", remedy="Change to one that exists.") from error
    return utf8(here if given is None else os.path.normpath(os.path.join(here, given)), "the directory")  # noqa: PTH118


def task_line(job: Job) -> str:
    """Give the one line that ``3ox run`` prints."""
    return f"agent:{job.project}:{job.job_id}"


def hand_in(job: Job, *, line: str, as_json: bool = False) -> int:
    """Hand a job in and say so on stdout: the line, or its receipt as JSON.

    Raises:
        StoreUnreachable: There is nobody to hand it to.
    """
    try:
        receipt = current_bridge().submit(job)
    except StoreTimeout as error:
        # It may carry the job out all the same, once it goes on.
        hint = f"The job may have been taken; look with '3ox jobs {job.job_id}' before you repeat it."
        raise StoreUnreachable(error.message, remedy=hint) from error
    if as_json:
        emit_json(receipt)
    else:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 0
