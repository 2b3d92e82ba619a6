"""The shell on a terminal: prompt, completion, toolbar, news above the prompt."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Iterable, Iterator

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from ingress.cli.shared import Ended, signals_interrupt
from ingress.core.text import one_line, short_id
from ingress.shell.history import LineHistory, history_file
from ingress.shell.line import COMMANDS
from ingress.shell.shell import Leave, Shell
from ops.settings.load import LoadedSettings

PROMPT = "3ox> "
#: More news than this, while nobody looks, and the oldest are let go.
_NEWS_MAX = 200
_TAKES_ID = {"job", "logs", "cancel"}


class News:
    """Lines from other threads: above the prompt while it stands, before the next one otherwise."""

    def __init__(self) -> None:
        self._pending: deque[str] = deque(maxlen=_NEWS_MAX)
        self._prompt: PromptSession[str] | None = None

    def attach(self, prompt: PromptSession[str]) -> None:
        """Name the prompt above which news are shown."""
        self._prompt = prompt

    def tell(self, text: str) -> None:
        """Take a line; from any thread."""
        self._pending.append(one_line(text))
        loop = None if self._prompt is None else self._prompt.app.loop
        if loop is not None:
            # A loop that has just ended takes no more calls: the news wait for the next prompt.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._show_above)

    def _show_above(self) -> None:
        run_in_terminal(self.show)

    def redraw(self) -> None:
        """Have the toolbar drawn anew; from any thread."""
        if self._prompt is not None:
            self._prompt.app.invalidate()

    def show(self) -> None:
        """Print what there is."""
        with contextlib.suppress(IndexError):
            while True:
                click.echo(f"3ox: {self._pending.popleft()}", err=True)


class LineCompleter(Completer):
    """Completes commands, and after them projects, job ids and sessions; from memory, without waiting.

    Args:
        shell: Knows them.
        projects: Names of projects.
    """

    def __init__(self, shell: Shell, projects: Iterable[str]) -> None:
        self._shell = shell
        self._projects = sorted(projects)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Give what the word before the cursor may become."""
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
        for job in self._shell.feed.view.jobs:
            short = short_id(job.job_id)
            if short.startswith(word):
                yield Completion(short, -len(word), display_meta=job.about)
            elif job.job_id.startswith(word):
                yield Completion(job.job_id, -len(word), display_meta=job.about)


def toolbar(shell: Shell) -> str:
    """Give the line below the prompt: session, queue, workers."""
    view = shell.feed.view
    if view.away:
        return f" {shell.session} | the store is away"
    counts = view.summary
    waiting = counts.get("queued", 0) + counts.get("scheduled", 0) + counts.get("retrying", 0)
    held = f", {counts['held']} held" if counts.get("held", 0) else ""
    return (
        f" {shell.session} | queue: {waiting} waiting, {counts.get('processing', 0)} running{held},"
        f" {counts.get('failed', 0)} failed | workers: {view.workers}"
    )


def run_prompt(loaded: LoadedSettings, *, session: str | None) -> int:
    """Read lines from the terminal until Ctrl-D or ``exit``.

    Args:
        loaded: The settings.
        session: Conversation to go on with.

    Returns:
        The exit code.
    """
    history = LineHistory(history_file(loaded.workspace))
    history.tidy()
    news = News()
    shell = Shell(loaded, history, session=session, tell=news.tell, changed=news.redraw)
    prompt: PromptSession[str] = PromptSession(
        PROMPT,
        history=history,
        completer=LineCompleter(shell, loaded.settings.projects),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        bottom_toolbar=lambda: toolbar(shell),
        enable_history_search=True,
    )
    news.attach(prompt)
    click.echo(f"session {shell.session}. A line is a question, 'help' lists the commands.")
    try:
        with signals_interrupt():
            shell.open()
        _read_and_do(prompt, shell, news)
    finally:
        shell.close()
    return 0


def _read_and_do(prompt: PromptSession[str], shell: Shell, news: News) -> None:
    while True:
        try:
            news.show()
            text = prompt.prompt(pre_run=lambda: _hear_the_end(prompt))
            with signals_interrupt():
                shell.carry_out(text)
        except (Leave, EOFError):
            return
        except Ended:
            raise
        except KeyboardInterrupt:
            # The line that stands there is given up, as in other shells.
            continue


def _hear_the_end(prompt: PromptSession[str]) -> None:
    """Have a closed terminal or a polite kill end the prompt in order, which leaves the terminal tidy."""

    def end(signal_number: int) -> None:
        if not prompt.app.is_done:
            prompt.app.exit(exception=Ended(signal_number))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # The loop takes them off when it closes, which it does at the end of each prompt.
        loop.add_signal_handler(number, end, number)
