"""Parse a line of the shell: a command if its words fit one, otherwise a question."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from msgspec import Struct

from ingress.core.terminal import nearest
from middleware.job.ids import ID_LENGTH, is_id_part
from ops.errors import UsageProblem

ASK = "ask"
#: Shortened ids of at least this length are recognized, even if they consist of letters only.
_UNAMBIGUOUS_ID_LENGTH = 8
_SLASH = re.compile(r"/([a-z]+)$")


class ParsedLine(Struct, frozen=True):
    """A parsed line.

    Attributes:
        command: One of ``COMMANDS``.
        rest: The text after the command, as typed.
    """

    command: str
    rest: str

    def words(self) -> list[str]:
        """Return the words after the command, split and unquoted as in a shell.

        Raises:
            UsageProblem: A quote is not closed.
        """
        try:
            return shlex.split(self.rest)
        except ValueError as error:
            raise UsageProblem(
                f"The line cannot be parsed: {error}.", remedy="Close the quote, or put a \\ before it."
            ) from error


class CommandSpec(Struct, frozen=True):
    """A command of the shell.

    Attributes:
        usage: Its syntax.
        help: One sentence about what it does.
        fits: Returns whether words can follow the command; if not, the line is a question.
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
    return all(word.startswith("-") or _is_unambiguous_id(word) for word in words)


def _may_be_id(word: str) -> bool:
    return is_id_part(word.rpartition(":")[2].lower())


def _is_unambiguous_id(word: str) -> bool:
    part = word.rpartition(":")[2].lower()
    return is_id_part(part) and (
        any(letter.isdigit() for letter in part) or _UNAMBIGUOUS_ID_LENGTH <= len(part) <= ID_LENGTH
    )


def _jobs(words: list[str]) -> bool:
    return _options_or_nothing(words) or (len(words) == 1 and _is_unambiguous_id(words[0]))


def _at_most_one(words: list[str]) -> bool:
    return len(words) <= 1


def _number(words: list[str]) -> bool:
    return not words or (len(words) == 1 and words[0].isdecimal())


def _command_name(words: list[str]) -> bool:
    return not words or (len(words) == 1 and words[0].removeprefix("/") in COMMANDS)


COMMANDS: dict[str, CommandSpec] = {
    ASK: CommandSpec(
        "[ask] QUESTION", "Ask a language model. A line that is not a command is a question.", _anything
    ),
    "sh": CommandSpec(
        "sh CMD [ARG]... [&]", "Run a command as a job; in the background with & at the end.", _anything
    ),
    "run": CommandSpec("run PROJECT TASK", "Submit a task for a project, in the background.", _anything),
    "jobs": CommandSpec("jobs [OPTION]...", "List jobs, with the options of '3ox jobs'.", _jobs),
    "job": CommandSpec("job ID", "Show one job.", _ids),
    "logs": CommandSpec("logs ID [-f]", "Show the output of a job; -f follows it.", _ids),
    "cancel": CommandSpec("cancel ID...", "Cancel jobs.", _ids),
    "status": CommandSpec("status", "Show store, queue, workers and daemons.", _options_or_nothing),
    "session": CommandSpec("session [NAME|new|clear]", "Show, switch or clear the session.", _at_most_one),
    "history": CommandSpec("history [N]", "Show the last N lines; 20 by default.", _number),
    "help": CommandSpec("help [COMMAND]", "Show the commands.", _command_name),
    "exit": CommandSpec("exit", "Leave the shell; so does Ctrl-D.", lambda words: not words),
}
_ALIASES = {"quit": "exit"}


def parse_line(text: str) -> ParsedLine | None:
    """Parse a line.

    A line is a command if its first word is one and the words after it fit: ``help`` is a command, ``help me
    with this`` a question. ``/help me`` is always a command, ``ask help`` always a question.

    Args:
        text: The line as typed.

    Returns:
        None for an empty line.

    Raises:
        UsageProblem: ``/NAME`` is not a command.
    """
    stripped = text.strip()
    if not stripped:
        return None
    first, rest = _split_first(stripped)
    slash = _SLASH.match(first)
    name = first if slash is None else slash.group(1)
    name = _ALIASES.get(name, name)
    spec = COMMANDS.get(name)
    if slash is not None:
        if spec is None:
            raise UsageProblem(
                f"Unknown command {first!r}.", remedy=f"{nearest(name, COMMANDS)}'help' lists the commands."
            )
        return ParsedLine(name, rest)
    if spec is None or not spec.fits(rest.split()):
        return ParsedLine(ASK, stripped)
    return ParsedLine(name, rest)


def _split_first(text: str) -> tuple[str, str]:
    """Return the first word and the rest."""
    parts = text.split(maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""
