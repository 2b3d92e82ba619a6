"""The shell on a terminal: prompt, completion, toolbar, and notices above the prompt."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from ingress.core.run_and_follow import Terminated, signals_interrupt
from ingress.core.text import one_line, short_id
from ingress.shell.history import LineHistory, history_file
from ingress.shell.parser import COMMANDS
from ingress.shell.shell import LeaveShell, Shell
from ops.settings.load import LoadedSettings

PROMPT = "3ox> "
#: Notices kept until they can be shown; beyond that the oldest are dropped.
_NOTICES_MAX = 200
_TAKES_ID = {"job", "logs", "cancel"}


class Notices:
    """Lines from other threads, shown above the prompt, or before the next one while a line runs."""

    def __init__(self) -> None:
        self._pending: deque[str] = deque(maxlen=_NOTICES_MAX)
        self._prompt: PromptSession[str] | None = None

    def attach(self, prompt: PromptSession[str]) -> None:
        """Set the prompt above which notices are shown."""
        self._prompt = prompt

    def add(self, text: str) -> None:
        """Add a notice; from any thread."""
        self._pending.append(one_line(text))
        loop = None if self._prompt is None else self._prompt.app.loop
        if loop is not None:
            # The loop may just have ended; the notice is then shown before the next prompt.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._show_above)

    def _show_above(self) -> None:
        run_in_terminal(self.show)

    def redraw(self) -> None:
        """Redraw the toolbar; from any thread."""
        if self._prompt is not None:
            self._prompt.app.invalidate()

    def show(self) -> None:
        """Print all notices."""
        with contextlib.suppress(IndexError):
            while True:
                click.echo(f"3ox: {self._pending.popleft()}", err=True)


class LineCompleter(Completer):
    """Completes commands, projects, job ids and session actions from memory, without a call to the store.

    Args:
        shell: Its monitor knows the latest jobs.
        projects: Names of the projects.
    """

    def __init__(self, shell: Shell, projects: Iterable[str]) -> None:
        self._shell = shell
        self._projects = sorted(projects)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Yield the completions of the word before the cursor."""
        del complete_event
        before = document.text_before_cursor.lstrip()
        words = before.split(" ")
        word = words[-1]
        if len(words) == 1:
            slash = "/" if word.startswith("/") else ""
            for name, spec in COMMANDS.items():
                if name.startswith(word.removeprefix("/")):
                    yield Completion(slash + name, -len(word), display_meta=spec.help)
            return
        command = words[0].removeprefix("/")
        if command == "run" and len(words) == 2:  # noqa: PLR2004 (the word after the command)
            yield from (Completion(name, -len(word)) for name in self._projects if name.startswith(word))
        elif command in _TAKES_ID:
            yield from self._ids(word)
        elif command == "session" and len(words) == 2:  # noqa: PLR2004
            yield from (Completion(name, -len(word)) for name in ("new", "clear") if name.startswith(word))
        elif command == "help":
            yield from (Completion(name, -len(word)) for name in COMMANDS if name.startswith(word))

    def _ids(self, word: str) -> Iterator[Completion]:
        for job in self._shell.monitor.snapshot.jobs:
            short = short_id(job.job_id)
            if short.startswith(word):
                yield Completion(short, -len(word), display_meta=job.about)
            elif job.job_id.startswith(word):
                yield Completion(job.job_id, -len(word), display_meta=job.about)


def toolbar(shell: Shell) -> str:
    """Return the line below the prompt: session, queue, workers."""
    snapshot = shell.monitor.snapshot
    if snapshot.is_unavailable:
        return f" {shell.session} | the store is unavailable"
    counts = snapshot.summary
    waiting = counts.get("queued", 0) + counts.get("scheduled", 0) + counts.get("retrying", 0)
    held = f", {counts['held']} held" if counts.get("held", 0) else ""
    return (
        f" {shell.session} | queue: {waiting} waiting, {counts.get('processing', 0)} running{held},"
        f" {counts.get('failed', 0)} failed | workers: {snapshot.workers}"
    )


def run_prompt(
    loaded: LoadedSettings, *, session: str | None, run_command: Callable[[list[str]], int]
) -> int:
    """Read lines from the terminal until Ctrl-D or ``exit``.

    Args:
        loaded: The settings.
        session: Session to continue; the user's own by default.
        run_command: Runs a command line of ``3ox`` and returns its exit code; raises its errors.

    Returns:
        The exit code.
    """
    history = LineHistory(history_file(loaded.workspace))
    history.tidy()
    notices = Notices()
    shell = Shell(
        loaded,
        history,
        session=session,
        announce=notices.add,
        on_snapshot=notices.redraw,
        run_command=run_command,
    )
    prompt: PromptSession[str] = PromptSession(
        PROMPT,
        history=history,
        completer=LineCompleter(shell, loaded.settings.projects),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        bottom_toolbar=lambda: toolbar(shell),
        enable_history_search=True,
    )
    notices.attach(prompt)
    click.echo(f"Session {shell.session}. Type a question, or 'help' for the commands.")
    try:
        with signals_interrupt():
            shell.open()
        _run_lines(prompt, shell, notices)
    finally:
        shell.close()
    return 0


def _run_lines(prompt: PromptSession[str], shell: Shell, notices: Notices) -> None:
    while True:
        try:
            notices.show()
            text = prompt.prompt(pre_run=lambda: _end_on_signal(prompt))
            with signals_interrupt():
                shell.run_line(text)
        except (LeaveShell, EOFError):
            return
        except Terminated:
            raise
        except KeyboardInterrupt:
            # Ctrl-C at the prompt discards the line, as in other shells.
            continue


def _end_on_signal(prompt: PromptSession[str]) -> None:
    """End the prompt in order on SIGTERM and SIGHUP, so that the state of the terminal is restored."""

    def end(signal_number: int) -> None:
        if not prompt.app.is_done:
            prompt.app.exit(exception=Terminated(signal_number))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # The loop removes them when it closes, at the end of each prompt.
        loop.add_signal_handler(number, end, number)
