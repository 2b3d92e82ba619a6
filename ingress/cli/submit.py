"""Commands that give the bridge something to do: ``ask``, ``run``, ``sh``."""

from __future__ import annotations

import sys

import click

from ingress.cli.job_builder import command, hand_in, question, task_line
from ingress.cli.job_builder import task as task_job
from ingress.cli.run_and_follow import Mode, carry_out
from ingress.cli.shared import json_option, seconds, utf8
from ingress.dispatch import resolve_id
from ops.errors import UsageProblem


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
    job = question(
        [_read_prompt()] if prompt == ("-",) else prompt,
        provider=provider,
        model=model,
        system=None if system is None else utf8(system, "--system"),
        session_id=session,
    )
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
@click.option(
    "--if-failed",
    type=click.Choice(["skip", "fail", "run"]),
    help="What becomes of this job when one of those is not completed: it is cancelled (default), fails"
    " too, or runs all the same.",
)
@click.option("--priority", metavar="N", type=click.IntRange(1, 10), help="1 is first, 10 last.")
@click.option("--timeout", metavar="S", type=seconds, help="Bound on one attempt.")
@json_option
def run(
    *,
    project: str,
    task: tuple[str, ...],
    wait: bool,
    after: tuple[str, ...],
    if_failed: str | None,
    priority: int | None,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Hand a task to a project; returns at once.

    The one line on stdout is agent:PROJECT:JOB_ID. PROJECT is a table [projects.NAME] in 3ox.toml.
    """
    if if_failed is not None and not after:
        raise UsageProblem("--if-failed says what --after does.", remedy="Add --after ID, or leave it out.")
    job = task_job(
        project,
        task,
        priority=priority,
        timeout_seconds=timeout,
        depends_on=_whole_ids(after),
        on_dependency_failure=if_failed,
    )
    line = task_line(job)
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
    job = command(argv, cwd=cwd, timeout_s=timeout)
    if detach:
        return hand_in(job, line=job.job_id, as_json=as_json)
    return carry_out(job, Mode(as_json=as_json, command=True))


COMMANDS = [ask, run, sh]
