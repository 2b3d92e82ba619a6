"""The provider for a local program that reads a prompt and prints an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from actors.context import current_job, settings
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage
from actors.process.child import Child, ChildTimedOut
from actors.process.command import inherited_env
from actors.process.output import OutputLimit, Tail
from ops.errors import JobFailed
from ops.settings.load import ENV_FOREIGN

#: Of what a failed program wrote to standard error, so much goes into the message.
_COMPLAINT_CHARS = 300


class CommandProvider:
    """Asks a local program.

    The prompt comes on its standard input, after the system text and an empty line if there is one. In its
    arguments ``{model}`` is replaced by the model that was asked for (by nothing when none was). It inherits
    what ``shell_env`` names, and the keys and addresses of model servers, which it may well need.

    Parameters:
        argv: Program and arguments.
        cwd: Where it runs.
        timeout_s: Bound on one answer, beside the job's own time limit.
        free: Its answers cost nothing.
    """

    name = "command"
    note = ""
    answer_max_tokens: int | None = None

    def __init__(self, argv: Sequence[str], *, cwd: Path, timeout_s: float | None, free: bool) -> None:
        self.model = program_name(argv)
        self.free = free
        self._argv = list(argv)
        self._cwd = cwd
        self._timeout_s = timeout_s

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``. The program's standard error goes to the job's output."""
        context = current_job()
        values = settings().settings
        model = "" if request.model is None else request.model
        system = "" if request.system is None else f"{request.system}\n\n"
        child = Child(
            [argument.replace("{model}", model) for argument in self._argv],
            cwd=self._cwd,
            env=inherited_env(*ENV_FOREIGN),
            kill_grace_s=values.kill_grace_s,
            stdin=system + _as_text(request),
            timeout_s=self._timeout_s,
        )
        complaint = Tail(_COMPLAINT_CHARS)
        errors = OutputLimit(lambda text, stream: context.write(text, stream=stream), values.output_max_bytes)
        try:
            with contextlib.closing(child.pieces()) as pieces:
                for stream, text in pieces:
                    if stream == "out":
                        yield text
                    else:
                        complaint.write(text)
                        errors.write(text, stream)
        except ChildTimedOut as error:
            raise ProviderUnavailable(error.message) from error
        finally:
            errors.close()
        if child.exit is None or child.exit.exit_status != 0:
            status = "no status" if child.exit is None else f"status {child.exit.exit_status}"
            said = " ".join(str(complaint).split())
            raise JobFailed(
                f"{self._argv[0]} ended with {status}{f': {said}' if said else ''}.",
                remedy="Run it by hand with the same prompt.",
            )
        yield Usage(model=model if model != "" else self.model)


def program_name(argv: Sequence[str]) -> str:
    """Give the name under which a program's price stands in the settings."""
    return Path(argv[0]).name


def _as_text(request: AskRequest) -> str:
    """Write a conversation as text; a single question stands for itself."""
    messages = request.messages
    if len(messages) == 1:
        text = messages[0].content
    else:
        text = "\n\n".join(f"{item.role.capitalize()}: {item.content}" for item in messages)
    if request.schema is None:
        return text
    schema = msgspec.json.encode(request.schema).decode()
    return f"{text}\n\nAnswer with one JSON document that follows this schema, and nothing else:\n{schema}"
