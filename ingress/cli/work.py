"""Commands that give the bridge something to do: ``ask``, ``run``, ``sh``."""

from __future__ import annotations

import os
import sys

import click

from ingress.cli.carry import Mode, carry_out, hand_in
from ingress.cli.shared import json_option, login_name, seconds, utf8
from ingress.dispatch import current_bridge, resolve_id
from middleware.job.schema import make_job
from ops.errors import UsageProblem

SOURCE = "cli"


@click.command()
@click.argument("prompt", nargs=-1, required=True)
@click.option("--provider", metavar="P", help="Who answers; the settings' order when absent.")
@click.option("--model", metavar="M", help="Model of that provider.")
@click.option("--system", metavar="S", help="Instruction that stands before the prompt.")
@click.option("--session", metavar="S", help="Conversation that this belongs to.")
@click.option("--detach", is_flag=True, help="Print the job's id and return at once.")
@json_option
def ask(
    *,
    prompt: tuple[str, ...],
    provider: str | None,
    model: str | None,
    system: str | None,
    session: str | None,
    detach: bool,
    as_json: bool,
) -> int:
    """Ask a language model; its answer is streamed.

    PROMPT is the question; - reads it from stdin. Ctrl-C cancels the job. Without a store the question is
    answered in this process, and stderr says so.
    """
    text = _read_prompt() if prompt == ("-",) else utf8(" ".join(prompt), "the prompt")
    payload = {
        "prompt": text,
        "provider": provider,
        "model": model,
        "system": None if system is None else utf8(system, "--system"),
    }
    job = make_job("ask", payload, source=SOURCE, actor=login_name(), session_id=session)
    if detach:
        return hand_in(job, line=job.job_id, as_json=as_json)
    return carry_out(job, Mode(as_json=as_json, ends_line=True))


def _read_prompt() -> str:
    try:
        return sys.stdin.buffer.read().decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageProblem("the prompt on stdin is not valid UTF-8.", remedy="Convert it first.") from error


@click.command()
@click.argument("project")
@click.argument("task", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Follow the output to the end and exit as the job ended.")
@click.option("--after", metavar="ID", multiple=True, help="Start when this job is completed; repeatable.")
@click.option("--priority", metavar="N", type=click.IntRange(1, 10), help="1 is first, 10 last.")
@click.option("--timeout", metavar="S", type=seconds, help="Bound on one attempt.")
@json_option
def run(
    *,
    project: str,
    task: tuple[str, ...],
    wait: bool,
    after: tuple[str, ...],
    priority: int | None,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Hand a task to a project; returns at once.

    The one line on stdout is agent:PROJECT:JOB_ID. PROJECT is a table [projects.NAME] in 3ox.toml.
    """
    settings = current_bridge().intake.project(project)
    depends_on = _whole_ids(after)
    job = make_job(
        "task.custom",
        {"task": utf8(" ".join(task), "the task")},
        source=SOURCE,
        actor=login_name(),
        project=project,
        priority=settings.priority if priority is None else priority,
        timeout_seconds=timeout,
        depends_on=depends_on,
    )
    line = f"agent:{project}:{job.job_id}"
    if not wait:
        return hand_in(job, line=line, as_json=as_json)
    return carry_out(job, Mode(as_json=as_json, line=line, ends_with_us=False))


def _whole_ids(parts: tuple[str, ...]) -> list[str]:
    return [resolve_id(part) for part in parts]


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("argv", metavar="CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--detach", is_flag=True, help="Print the job's id and return at once.")
@click.option("--timeout", metavar="S", type=seconds, help="Bound on one attempt.")
@click.option("--cwd", metavar="DIR", help="Where the command runs; the current directory by default.")
@json_option
def sh(*, argv: tuple[str, ...], detach: bool, timeout: float | None, cwd: str | None, as_json: bool) -> int:
    """Run a command as a job, as if it ran here.

    Its output is streamed, its exit status becomes ours. Write -- before the command if it begins with a
    dash. No shell reads it: for pipes and the like use sh -c '...'. It reads nothing: our standard input
    is not passed on. Ctrl-C cancels the job. Without a store it runs in this process, and stderr says so.
    """
    payload = {"argv": [utf8(word, "the command") for word in argv], "cwd": _directory(cwd)}
    job = make_job("shell.cmd", payload, source=SOURCE, actor=login_name(), timeout_seconds=timeout)
    if detach:
        return hand_in(job, line=job.job_id, as_json=as_json)
    return carry_out(job, Mode(as_json=as_json, command=True))


def _directory(given: str | None) -> str:
    try:
        here = os.getcwd()  # noqa: PTH109 (a str is wanted, and pathlib is slow to import)
    except FileNotFoundError as error:
        raise UsageProblem("the current directory is gone.", remedy="Change to one that exists.") from error
    return utf8(here if given is None else os.path.normpath(os.path.join(here, given)), "the directory")  # noqa: PTH118


COMMANDS = [ask, run, sh]
