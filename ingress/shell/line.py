"""What a line of the shell means: a command if its words fit one, otherwise a question."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from msgspec import Struct

from middleware.job.ids import ID_LENGTH, is_id_part
from ops.errors import UsageProblem

ASK = "ask"
#: A shortened id of this length cannot be mistaken for a word that happens to have only letters of ids.
_SURE_ID_LENGTH = 8
_SLASH = re.compile(r"/([a-z]+)$")


class Line(Struct, frozen=True):
    """A line that was understood.

    Attributes:
        command: One of ``COMMANDS``.
        rest: What follows it, as it was typed.
    """

    command: str
    rest: str

    def words(self) -> list[str]:
        """Give what follows the command word by word, quotes taken off.

        Raises:
            UsageProblem: A quote is not closed.
        """
        try:
            return shlex.split(self.rest)
        except ValueError as error:
            raise UsageProblem(
                f"the line cannot be taken apart: {error}.", remedy="Close the quote, or put a \\ before it."
            ) from error


class CommandSpec(Struct, frozen=True):
    """A command of the shell.

    Attributes:
        usage: How it is written.
        help: What it does, one sentence.
        fits: Whether these words can follow it; if they cannot, the line is a question.
    """

    usage: str
    help: str
    fits: Callable[[list[str]], bool]


def _anything(words: list[str]) -> bool:
    del words
    return True


def _options_or_nothing(words: list[str]) -> bool:
    return not words or words[0].startswith("-")


def _ids(words: list[str]) -> bool:
    if len(words) <= 1:
        return all(map(_may_be_id, words))
    return all(word.startswith("-") or _is_surely_id(word) for word in words)


def _may_be_id(word: str) -> bool:
    return is_id_part(word.rpartition(":")[2].lower())


def _is_surely_id(word: str) -> bool:
    part = word.rpartition(":")[2].lower()
    return is_id_part(part) and (
        any(letter.isdigit() for letter in part) or _SURE_ID_LENGTH <= len(part) <= ID_LENGTH
    )


def _jobs(words: list[str]) -> bool:
    return _options_or_nothing(words) or (len(words) == 1 and _is_surely_id(words[0]))


def _at_most_one(words: list[str]) -> bool:
    return len(words) <= 1


def _number(words: list[str]) -> bool:
    return not words or (len(words) == 1 and words[0].isdecimal())


def _command_name(words: list[str]) -> bool:
    return not words or (len(words) == 1 and words[0].removeprefix("/") in COMMANDS)


COMMANDS: dict[str, CommandSpec] = {
    ASK: CommandSpec("[ask] QUESTION", "Ask a language model; what is no command is a question.", _anything),
    "sh": CommandSpec(
        "sh CMD [ARG]... [&]", "Run a command as a job; with & at the end in the background.", _anything
    ),
    "run": CommandSpec("run PROJECT TASK", "Hand a task to a project, in the background.", _anything),
    "jobs": CommandSpec("jobs [OPTION]...", "List the jobs; options as of '3ox jobs'.", _jobs),
    "job": CommandSpec("job ID", "Show one job.", _ids),
    "logs": CommandSpec("logs ID [-f]", "Show the output of a job; with -f to its end.", _ids),
    "cancel": CommandSpec("cancel ID...", "Cancel jobs.", _ids),
    "status": CommandSpec("status", "Show store, queue, workers and daemons.", _options_or_nothing),
    "session": CommandSpec(
        "session [NAME|new|clear]", "Show the conversation, go to another, or forget it.", _at_most_one
    ),
    "history": CommandSpec("history [N]", "Show the last lines; 20 by default.", _number),
    "help": CommandSpec("help [COMMAND]", "Show this.", _command_name),
    "exit": CommandSpec("exit", "Leave the shell; so does Ctrl-D.", lambda words: not words),
}
_ALIASES = {"quit": "exit"}


def read_line(text: str) -> Line | None:
    """Find out what a line means.

    A line is a command if its first word is one and the words after it fit: ``help`` is a command, ``help me
    with this`` a question. ``/help me`` is a command in any case, ``ask help`` a question in any case.

    Args:
        text: What was typed.

    Returns:
        None for an empty line.

    Raises:
        UsageProblem: ``/NAME`` names no command.
    """
    stripped = text.strip()
    if not stripped:
        return None
    first, rest = _divide(stripped)
    slash = _SLASH.match(first)
    name = first if slash is None else slash.group(1)
    name = _ALIASES.get(name, name)
    spec = COMMANDS.get(name)
    if slash is not None:
        if spec is None:
            from ingress.cli.shared import nearest

            raise UsageProblem(
                f"there is no command {first!r}.", remedy=f"{nearest(name, COMMANDS)}'help' lists all."
            )
        return Line(name, rest)
    if spec is None or not spec.fits(rest.split()):
        return Line(ASK, stripped)
    return Line(name, rest)


def _divide(text: str) -> tuple[str, str]:
    """Give the first word and what follows it."""
    parts = text.split(maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""
