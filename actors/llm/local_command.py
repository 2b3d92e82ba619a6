"""The provider that runs a local program: it reads the prompt and prints the answer."""

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

#: Characters of a failed program's standard error (its end) in the error message.
_ERROR_CHARS = 300


class CommandProvider:
    """Asks a local program.

    The program reads the prompt from standard input, after the system prompt and an empty line if there is
    one. ``{model}`` in its arguments is replaced by the requested model (empty for none). It inherits the
    variables in ``shell_env``, and the keys and base URLs of model servers.

    Parameters:
        argv: Program and arguments.
        cwd: Working directory.
        timeout_s: Timeout of one answer, besides the job's own, in seconds.
        free: Whether its answers cost nothing.
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
        error_tail = Tail(_ERROR_CHARS)
        errors = OutputLimit(lambda text, stream: context.write(text, stream=stream), values.output_max_bytes)
        try:
            with contextlib.closing(child.pieces()) as pieces:
                for stream, text in pieces:
                    if stream == "out":
                        yield text
                    else:
                        error_tail.write(text)
                        errors.write(text, stream)
        except ChildTimedOut as error:
            raise ProviderUnavailable(error.message) from error
        finally:
            errors.close()
        if child.exit is None or child.exit.exit_status != 0:
            status = "no status" if child.exit is None else f"status {child.exit.exit_status}"
            errors_text = " ".join(str(error_tail).split())
            raise JobFailed(
                f"{self._argv[0]} ended with {status}{f': {errors_text}' if errors_text else ''}.",
                remedy="Run it by hand with the same prompt.",
            )
        yield Usage(model=model if model != "" else self.model)


def program_name(argv: Sequence[str]) -> str:
    """Return the name of a program in ``[ask.prices]``."""
    return Path(argv[0]).name


def _as_text(request: AskRequest) -> str:
    """Return a conversation as text; a single message is returned as it is."""
    messages = request.messages
    if len(messages) == 1:
        text = messages[0].content
    else:
        text = "\n\n".join(f"{item.role.capitalize()}: {item.content}" for item in messages)
    if request.schema is None:
        return text
    schema = msgspec.json.encode(request.schema).decode()
    return f"{text}\n\nAnswer with one JSON document that follows this schema, and nothing else:\n{schema}"
