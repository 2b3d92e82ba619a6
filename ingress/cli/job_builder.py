"""Build the jobs of ``ask``, ``run``, ``sh`` and ``submit`` from their parameters, and submit them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from ingress.core.local_user import login_name, utf8
from ingress.core.submitter import current_submitter
from middleware.job.schema import Job, make_job
from ops.environment import selected
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
        "prompt": _read_text("the prompt") if prompt == ("-",) else utf8(" ".join(prompt), "the prompt"),
        "provider": provider,
        "model": model,
        "system": None if system is None else utf8(system, "--system"),
    }
    return make_job("ask", payload, source=SOURCE, actor=login_name(), session_id=session)


def _read_text(what: str) -> str:
    from ingress.core.stdin import read_text  # needed for the argument - only

    return read_text(current_submitter().loaded.settings.payload_max_bytes, what)


def task_job(
    *,
    project: str,
    task: tuple[str, ...],
    after: tuple[str, ...] = (),
    if_failed: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
) -> Job:
    """Return a ``task.custom`` job; the task ``-`` is read from stdin.

    Raises:
        UsageProblem: ``if_failed`` without ``after``.
        JobNotFound: A job of ``after`` does not exist.
    """
    _require_after(after, if_failed)
    return make_job(
        "task.custom",
        {"task": _read_text("the task") if task == ("-",) else utf8(" ".join(task), "the task")},
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


def command_job(
    *,
    argv: tuple[str, ...],
    cwd: str | None = None,
    env: tuple[str, ...] = (),
    timeout: float | None = None,
    after: tuple[str, ...] = (),
    if_failed: str | None = None,
    detach: bool = False,
) -> Job:
    """Return a ``shell.cmd`` job that runs in the current directory, or in ``cwd`` relative to it.

    A caller that waits passes its streams on: the command then has no time limit unless ``timeout`` or
    3ox.toml sets one, and is not started a second time. Otherwise stdin becomes a part of the job.

    Raises:
        UsageProblem: A value is not valid; stdin is too large for a job that is not attached.
        JobNotFound: A job of ``after`` does not exist.
    """
    from ingress.core.stdin import has_input  # needed for sh only, as the next
    from middleware.job.attachment import attached_fields

    _require_after(after, if_failed)
    payload: dict[str, Any] = {
        "argv": [utf8(word, "the command") for word in argv],
        "cwd": _directory(cwd),
        "env": dict(map(_variable, env)),
    }
    fields: dict[str, Any] = {"timeout_seconds": timeout}
    if not detach:
        fields = attached_fields(
            current_submitter().loaded.settings, reads_input=has_input(), timeout_s=timeout
        )
    elif has_input():
        payload.update(_input_of_job())
    return make_job(
        "shell.cmd",
        payload,
        source=SOURCE,
        actor=login_name(),
        depends_on=_whole_ids(after),
        on_dependency_failure=if_failed,
        **fields,
    )


def _variable(text: str) -> tuple[str, str]:
    """Return name and value of an option ``--env``.

    Raises:
        UsageProblem: It has no name, or the variable is not set here.
    """
    name, has_value, value = text.partition("=")
    if name == "" or "\0" in text:
        raise UsageProblem(f"--env {text!r} has no name.", remedy="Write --env NAME or --env NAME=VALUE.")
    if not has_value:
        known = selected((name,))
        if not known:
            raise UsageProblem(
                f"--env {name}: the variable is not set here.", remedy=f"Set it, or write --env {name}=VALUE."
            )
        value = known[name]
    return utf8(name, "--env"), utf8(value, f"the value of {name}")


def _input_of_job() -> dict[str, str]:
    """Return stdin as a part of a payload: as text, or as base64 if it is not UTF-8."""
    import base64

    from ingress.core.stdin import read_input

    # In base64 it is a third longer.
    data = read_input(current_submitter().loaded.settings.payload_max_bytes * 3 // 4, "the input")
    try:
        return {"stdin": data.decode()}
    except UnicodeDecodeError:
        return {"stdin_base64": base64.b64encode(data).decode()}


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
    left_out = {"as_json", "wait"} if command == "sh" else {"as_json", "wait", "detach"}
    own = {name: value for name, value in values.items() if name not in left_out}
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
        from ingress.core.terminal import emit_json  # loads what lists of jobs need

        emit_json(receipt)
    else:
        sys.stdout.write(f"{line_of(job)}\n")
        sys.stdout.flush()
    return 0
