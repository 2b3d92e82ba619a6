"""The options of ``ask``, ``run``, ``sh`` and ``submit``: one table, read by the fast path and by click.

click takes a third of the time of a short command, so the fast path (``start.py``) reads command lines with
``parse``. What that does not accept (``--help``, an unknown option, a bad value) goes to click, which
explains it; ``submit.py`` makes the click commands from the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def seconds(text: str) -> float:
    """Return a finite number of seconds above 0.

    Raises:
        ValueError: The text is not one.
    """
    number = seconds_or_zero(text)
    if number == 0:
        raise ValueError(f"{text!r} must be above 0.")
    return number


def seconds_or_zero(text: str) -> float:
    """Return a finite number of seconds from 0.

    Raises:
        ValueError: The text is not one.
    """
    try:
        number = float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a number of seconds.") from error
    if not 0 <= number < float("inf"):
        raise ValueError(f"{text!r} must be a finite number from 0.")
    return number


def priority(text: str) -> int:
    """Return a priority from 1 to 10.

    Raises:
        ValueError: The text is not one.
    """
    if not text.isdecimal() or not 1 <= int(text) <= 10:  # noqa: PLR2004 (as the schema has it)
        raise ValueError(f"{text!r} is not a priority from 1 to 10.")
    return int(text)


class Option:
    """An option of a command.

    Args:
        name: Name of the parameter it sets.
        flag: As typed, ``--wait``.
        text: Its line on the help page.
        metavar: Its value on the help page; empty for a switch without a value.
        read: Converts the value; raises ``ValueError`` with the reason.
        choices: The values it may have; empty: any.
        is_repeatable: It may be given more than once; the parameter is a tuple.
    """

    # A plain class: NamedTuple and dataclass take up to 1 ms to create one.
    def __init__(
        self,
        name: str,
        flag: str,
        text: str,
        metavar: str = "",
        read: Callable[[str], Any] = str,
        *,
        choices: tuple[str, ...] = (),
        is_repeatable: bool = False,
    ) -> None:
        self.name = name
        self.flag = flag
        self.text = text
        self.metavar = metavar
        self.read = read
        self.choices = choices
        self.is_repeatable = is_repeatable

    @property
    def default(self) -> Any:
        """The parameter's value when the option is not given."""
        if self.metavar == "":
            return False
        return () if self.is_repeatable else None


class Form:
    """What may follow the name of a command.

    Args:
        leading: Name of a single argument before the others; empty: none.
        words: Name of the parameter for all other arguments.
        options: The options.
        returns_at_once: From the parameters: whether the command only submits the job.
        stops_at_argument: What follows the first argument is not read as options of ours.
        words_required: There must be at least one of the other arguments.
    """

    def __init__(
        self,
        leading: str,
        words: str,
        options: tuple[Option, ...],
        returns_at_once: Callable[[Mapping[str, Any]], bool],
        *,
        stops_at_argument: bool = False,
        words_required: bool = True,
    ) -> None:
        self.leading = leading
        self.words = words
        self.options = options
        self.returns_at_once = returns_at_once
        self.stops_at_argument = stops_at_argument
        self.words_required = words_required


DETACH = Option("detach", "--detach", "Print the job's ID and return at once.")
JSON = Option("as_json", "--json", "Write one JSON document to stdout.")
TIMEOUT = Option("timeout", "--timeout", "Timeout per attempt, in seconds.", "S", seconds)
WAIT = Option("wait", "--wait", "Follow the output to the end; the exit code is the job's.")
AFTER = Option("after", "--after", "Start when this job has completed; repeatable.", "ID", is_repeatable=True)
IF_FAILED = Option(
    "if_failed",
    "--if-failed",
    "If a job of --after does not complete: skip (cancel this job; the default), fail it too, or"
    " run it anyway.",
    "[skip|fail|run]",
    choices=("skip", "fail", "run"),
)
PRIORITY = Option("priority", "--priority", "Priority from 1 (first) to 10 (last).", "N", priority)

FORMS = {
    "ask": Form(
        "",
        "prompt",
        (
            Option("provider", "--provider", "LLM provider; by default the first in the settings.", "P"),
            Option("model", "--model", "Model of the provider.", "M"),
            Option("system", "--system", "System prompt.", "S"),
            Option("session", "--session", "Conversation to continue.", "S"),
            DETACH,
            JSON,
        ),
        lambda values: bool(values["detach"]),
    ),
    "run": Form(
        "project",
        "task",
        (
            WAIT,
            AFTER,
            IF_FAILED,
            PRIORITY,
            TIMEOUT,
            JSON,
        ),
        lambda values: not values["wait"],
    ),
    "sh": Form(
        "",
        "argv",
        (
            DETACH,
            TIMEOUT,
            Option("cwd", "--cwd", "Directory to run in; by default the current one.", "DIR"),
            Option(
                "env",
                "--env",
                "Environment variable of the command; NAME alone passes on the caller's value. Repeatable.",
                "NAME[=VALUE]",
                is_repeatable=True,
            ),
            AFTER,
            IF_FAILED,
            JSON,
        ),
        lambda values: bool(values["detach"]),
        stops_at_argument=True,
    ),
    "submit": Form(
        "job_type",
        "arguments",
        (
            WAIT,
            Option("payload", "--payload", "Arguments as a JSON object; NAME=VALUE replaces them.", "JSON"),
            Option("queue", "--queue", "Queue of the job; by default that of its type.", "Q"),
            Option("project", "--project", "Project of the job.", "P"),
            AFTER,
            IF_FAILED,
            PRIORITY,
            TIMEOUT,
            JSON,
        ),
        lambda values: not values["wait"],
        words_required=False,
    ),
}


def parse(form: Form, words: Sequence[str]) -> dict[str, Any] | None:
    """Return the parameters of a command line, None if it is not one that this parser accepts.

    Args:
        form: Of the command.
        words: What follows the command's name.
    """
    values: dict[str, Any] = {option.name: option.default for option in form.options}
    by_flag = {option.flag: option for option in form.options}
    arguments: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--" or (form.stops_at_argument and not word.startswith("-")):
            arguments += rest if word == "--" else [word, *rest]
            break
        if word == "-" or not word.startswith("-"):
            arguments.append(word)
        elif word not in by_flag or not _take(by_flag[word], values, rest):
            return None
    leading = [form.leading] if form.leading else []
    if len(arguments) < len(leading) + form.words_required:
        return None
    values.update(zip(leading, arguments, strict=False))
    values[form.words] = tuple(arguments[len(leading) :])
    return values


def _take(option: Option, values: dict[str, Any], rest: list[str]) -> bool:
    """Set the parameter of an option from the words that follow; return whether its value is valid."""
    if option.metavar == "":
        values[option.name] = True
        return True
    if not rest or rest[0].startswith("-") or (option.choices and rest[0] not in option.choices):
        return False
    try:
        value = option.read(rest.pop(0))
    except ValueError:
        return False
    values[option.name] = (*values[option.name], value) if option.is_repeatable else value
    return True
