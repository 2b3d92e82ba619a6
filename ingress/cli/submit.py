"""Commands that submit a job: ``ask``, ``run``, ``sh``, ``submit``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import click

from ingress.cli.job_builder import build, line_of, submit_only
from ingress.cli.shared import ValueType
from ingress.cli.submit_options import FORMS, Form, Option
from ingress.core.run_and_follow import Mode, run_and_follow
from middleware.job.schema import Job
from ops.errors import UsageProblem

_HELP = {
    "ask": """Ask a language model; its answer is streamed.

    PROMPT is the question; - reads it from stdin. Ctrl-C cancels the job. Without a store the question is
    answered in this process, and stderr says so.
    """,
    "run": """Submit a task to a project; returns at once.

    Prints one line: agent:PROJECT:JOB_ID. TASK - reads it from stdin. PROJECT is a
    table [projects.NAME] in 3ox.toml.
    """,
    "sh": """Run a command as a job, as if it ran here.

    Standard input is passed on, its output comes back byte for byte, and its exit status becomes ours: 126
    if it is not executable, 127 if it is not found, 128 + N if signal N ended it. If input or output could
    not be passed on, the exit status is 1, and stderr says so.

    No shell interprets the command: for pipes and the like write 3ox sh -- sh -c '...'. It gets the
    environment of the worker, see --env. Ctrl-C cancels the job. Only --timeout limits its time; with
    --detach, the limit of shell.cmd applies. Without a store the command runs in this process, and stderr
    says so.
    """,
    "submit": """Submit a job of any type; returns at once.

    Prints the ID of the job; with --wait also its output and, at the end, what it returned: a text as it is,
    anything else as JSON. '3ox types' lists the types, '3ox types TYPE' the arguments of one. A value is
    converted to what the type declares for NAME: integers, numbers, booleans, null, arrays and objects are
    written as JSON, texts as they are.
    """,
}
_METAVARS = {"sh": "CMD [ARG]...", "submit": "[NAME=VALUE]..."}
#: Commands whose jobs go on after Ctrl-C; the line of the job is printed first.
_RETURNING = {"run", "submit"}
#: Types whose output is what they have to say.
_OUTPUT_IS_RESULT = frozenset({"ask", "shell.cmd", "task.custom"})


def _mode(command: str, job: Job, *, as_json: bool) -> Mode:
    """Return how a command follows its job."""
    if command in _RETURNING:
        prints_result = command == "submit" and job.job_type not in _OUTPUT_IS_RESULT
        return Mode(
            as_json=as_json,
            line=line_of(job),
            ends_line=prints_result,
            cancels=False,
            prints_result=prints_result,
        )
    return Mode(as_json=as_json, ends_line=command == "ask")


def _callback(command: str) -> Callable[..., int]:
    def act(**values: Any) -> int:
        job, as_json = build(command, values), values["as_json"]
        if FORMS[command].returns_at_once(values):
            return submit_only(job, as_json=as_json)
        return run_and_follow(job, _mode(command, job, as_json=as_json))

    return act


def _click_option(option: Option) -> click.Option:
    if option.metavar == "":
        return click.Option([option.flag, option.name], is_flag=True, help=option.text)
    value_type = click.Choice(option.choices) if option.choices else ValueType(option.read)
    return click.Option(
        [option.flag, option.name],
        metavar=option.metavar,
        type=value_type,
        multiple=option.is_repeatable,
        help=option.text,
    )


class _ShellCommand(click.Command):
    """``3ox sh``, which knows what its users write in other shells."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line.

        Raises:
            UsageProblem: It is that of a shell: ``-c`` and a command line.
        """
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name != "-c":
                raise
            line = words[words.index("-c") + 1 :] if "-c" in words else []
            raise UsageProblem(
                "'3ox sh' has no option -c: it starts a program, and no shell interprets the command.",
                remedy=f"Write 3ox sh -- sh -c {shlex.quote(line[0] if line else '...')}.",
            ) from error


def _command(name: str, form: Form) -> click.Command:
    leading = "TYPE" if name == "submit" else None
    arguments = [click.Argument([form.leading], metavar=leading)] if form.leading else []
    words = click.Argument(
        [form.words],
        nargs=-1,
        required=form.words_required,
        type=click.UNPROCESSED,
        metavar=_METAVARS.get(name),
    )
    return (_ShellCommand if name == "sh" else click.Command)(
        name,
        context_settings={"allow_interspersed_args": not form.stops_at_argument},
        params=[*arguments, words, *map(_click_option, form.options)],
        callback=_callback(name),
        help=_HELP[name],
    )


COMMANDS = [_command(name, form) for name, form in FORMS.items()]
