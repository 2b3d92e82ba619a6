"""Build the jobs of ``ask``, ``run``, ``sh`` and ``submit`` from their parameters, and submit them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from ingress.core.submitter import current_submitter
from ingress.core.terminal import emit_json, login_name, utf8
from middleware.job.schema import Job, make_job
from ops.errors import StoreTimeout, StoreUnreachable, UsageProblem

SOURCE = "cli"


def ask_job(
    *,
    prompt: tuple[str, ...],
    provider: str | None = None,
    model: str | None = None,
    system: str | None = None,
    session: str | None = None,
) -> Job:
    """Return an ``ask`` job; the prompt ``-`` is read from stdin."""
    payload = {
        "prompt": _read_prompt() if prompt == ("-",) else utf8(" ".join(prompt), "the prompt"),
        "provider": provider,
        "model": model,
        "system": None if system is None else utf8(system, "--system"),
    }
    return make_job("ask", payload, source=SOURCE, actor=login_name(), session_id=session)


def _read_prompt() -> str:
    try:
        return sys.stdin.buffer.read().decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageProblem(
            "The prompt on stdin is not valid UTF-8.", remedy="Convert it to UTF-8 first."
        ) from error


def task_job(
    *,
    project: str,
    task: tuple[str, ...],
    after: tuple[str, ...] = (),
    if_failed: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
) -> Job:
    """Return a ``task.custom`` job.

    Raises:
        UsageProblem: ``if_failed`` without ``after``.
        JobNotFound: A job of ``after`` does not exist.
    """
    _require_after(after, if_failed)
    return make_job(
        "task.custom",
        {"task": utf8(" ".join(task), "the task")},
        source=SOURCE,
        actor=login_name(),
        project=project,
        priority=priority,
        timeout_seconds=timeout,
        depends_on=_whole_ids(after),
        on_dependency_failure=if_failed,
    )


def _require_after(after: tuple[str, ...], if_failed: str | None) -> None:
    if if_failed is not None and not after:
        raise UsageProblem("--if-failed needs --after.", remedy="Add --after ID, or leave out --if-failed.")


def _whole_ids(parts: tuple[str, ...]) -> list[str]:
    if not parts:
        return []
    from ingress.core.bridge import current_bridge
    from ingress.core.lookup import find  # 3 ms, needed for --after only

    return [find(current_bridge(), part).job_id for part in parts]


def command_job(*, argv: tuple[str, ...], cwd: str | None = None, timeout: float | None = None) -> Job:
    """Return a ``shell.cmd`` job that runs in the current directory, or in ``cwd`` relative to it."""
    payload = {"argv": [utf8(word, "the command") for word in argv], "cwd": _directory(cwd)}
    return make_job("shell.cmd", payload, source=SOURCE, actor=login_name(), timeout_seconds=timeout)


def _directory(given: str | None) -> str:
    try:
        here = os.getcwd()  # noqa: PTH109 (a str is wanted, and pathlib is slow to import)
    except FileNotFoundError as error:
        raise UsageProblem(
            "The current directory no longer exists.", remedy="Change to one that does."
        ) from error
    return utf8(here if given is None else os.path.normpath(os.path.join(here, given)), "the directory")  # noqa: PTH118


def typed_job(
    *,
    job_type: str,
    arguments: tuple[str, ...],
    payload: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    after: tuple[str, ...] = (),
    if_failed: str | None = None,
    project: str | None = None,
) -> Job:
    """Return a job of any type.

    Raises:
        InvalidJob: The type is unknown, or a field of the job is not valid. The arguments of an actor are
            checked when the job is submitted.
        UsageProblem: An argument or the payload cannot be read.
        JobNotFound: A job of ``after`` does not exist.
        StoreUnreachable: The type is not built in, and the store is unavailable.
    """
    from ingress.cli.payload_arguments import payload_of  # needed for submit only

    _require_after(after, if_failed)
    declared = current_submitter().admission.types.require(job_type)
    if queue is not None and declared.payload is not None:
        raise UsageProblem(
            f"Jobs of the built-in type {job_type} go to the queue {declared.queue}.",
            remedy="Remove --queue.",
        )
    return make_job(
        job_type,
        payload_of(arguments, payload, declared.json_schema()),
        source=SOURCE,
        actor=login_name(),
        project=project,
        queue=queue,
        priority=priority,
        timeout_seconds=timeout,
        depends_on=_whole_ids(after),
        on_dependency_failure=if_failed,
    )


#: Name of the command -> what builds its job from its parameters.
BUILDERS: dict[str, Callable[..., Job]] = {
    "ask": ask_job,
    "run": task_job,
    "sh": command_job,
    "submit": typed_job,
}


def build(command: str, values: dict[str, Any]) -> Job:
    """Return the job of a command.

    Args:
        command: ``ask``, ``run``, ``sh`` or ``submit``.
        values: Its parameters; those that do not concern the job are left out.
    """
    own = {name: value for name, value in values.items() if name not in {"as_json", "detach", "wait"}}
    return BUILDERS[command](**own)


def line_of(job: Job) -> str:
    """Return the line that is printed for a submitted job: ``agent:PROJECT:JOB_ID``, or the id."""
    return job.job_id if job.job_type != "task.custom" else f"agent:{job.project}:{job.job_id}"


def submit_only(job: Job, *, as_json: bool) -> int:
    """Submit a job and print its line, or its receipt as JSON; return the exit code.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    try:
        receipt = current_submitter().submit(job)
    except StoreTimeout as error:
        # A store that hangs may still accept the job when it goes on.
        hint = f"The job may have been submitted; check '3ox jobs {job.job_id}' before you repeat it."
        raise StoreUnreachable(error.message, remedy=hint) from error
    if as_json:
        emit_json(receipt)
    else:
        sys.stdout.write(f"{line_of(job)}\n")
        sys.stdout.flush()
    return 0
