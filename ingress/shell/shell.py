"""Carries out the lines of a shell, whoever reads them: a prompt, or a file."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from ingress.cli.run_and_follow import Mode, carry_out
from ingress.cli.shared import Ended, login_name, note, utf8
from ingress.core.acceptance import Acceptance
from ingress.core.bridge import Bridge, connect, current_bridge
from ingress.core.spooled_jobs import SPOOLED
from ingress.core.text import count_of, one_line, print_fields, short_id
from ingress.shell.feed import Feed
from ingress.shell.history import LineHistory
from ingress.shell.line import COMMANDS, Line, read_line
from middleware.job.base import Name
from middleware.job.schema import Job, make_job
from middleware.job.sessions import Sessions
from ops.errors import BridgeError, SessionNotFound, UsageProblem
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings

if TYPE_CHECKING:
    from middleware.job.records import Receipt

SOURCE = "shell"
_HISTORY_SHOWN = 20
_SESSION_MAX = 64
#: Commands of ``3ox`` that are taken as they are, with their options.
_BORROWED = {"jobs": "jobs", "job": "jobs", "logs": "logs", "cancel": "cancel", "status": "status"}


class Leave(Exception):
    """The user wants to leave the shell."""


class Shell:
    """A shell: its bridge, its session, its background jobs.

    Args:
        loaded: The settings.
        history: What was typed.
        session: Conversation to go on with; one of the user's own by default.
        tell: Takes lines about background jobs and the store; called from threads.
        changed: Called, from a thread, when toolbar and completion have something new.

    Raises:
        UsageProblem: The session cannot be named so.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        history: LineHistory,
        *,
        session: str | None = None,
        tell: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._loaded = loaded
        self._history = history
        self._actor = login_name()
        self.session = own_session(self._actor) if session is None else session_name(session)
        self.bridge: Bridge = connect(loaded)
        self.bridge.admission.follow_settings(LiveSettings(loaded).now)
        self._acceptance = Acceptance(self.bridge)
        self.feed = Feed(self.bridge, tell, changed)
        self._acts: dict[str, Callable[[Line], int]] = {
            "ask": self._ask,
            "sh": self._sh,
            "run": self._run,
            "session": self._session,
            "history": self._show_history,
            "help": self._help,
            "exit": self._exit,
            **dict.fromkeys(_BORROWED, self._borrow),
        }

    def open(self) -> None:
        """Begin to listen to the bridge, and to hand over what is in the spool."""
        self.feed.start()
        self._acceptance.start()

    def close(self) -> None:
        """End; background jobs go on, and are named."""
        self.feed.stop()
        self._acceptance.stop()
        if left := self.feed.tracked():
            names = ", ".join(map(short_id, left[:10]))
            note(f"{count_of(len(left), 'background job')} may go on: {names}.")

    def carry_out(self, text: str) -> int:
        """Carry out one line; what goes wrong is told, and does not end the shell.

        Args:
            text: What was typed.

        Returns:
            An exit code, as a command of ``3ox`` would give it.

        Raises:
            Leave: The line says so.
            Ended: The terminal was closed, or the process is asked to end.
        """
        try:
            line = read_line(utf8(text, "the line"))
            return 0 if line is None else self._acts[line.command](line)
        except Ended:
            raise
        except KeyboardInterrupt:
            return 130
        except click.ClickException as error:
            note(f"{error.format_message()} 'help' lists the commands.")
            return UsageProblem.exit_code
        except click.exceptions.Exit as request:
            return request.exit_code
        except BridgeError as error:
            note(str(error))
            return error.exit_code

    def _job(self, job_type: str, payload: dict[str, object], **fields: object) -> Job:
        # Typed at a terminal, or in a file that its owner runs: the login is the operator's.
        return make_job(job_type, payload, source=SOURCE, actor=self._actor, trust="operator", **fields)

    def _ask(self, line: Line) -> int:
        if not line.rest:
            raise UsageProblem("there is no question.", remedy="Write it behind 'ask', or without that word.")
        job = self._job("ask", {"prompt": line.rest}, session_id=self.session)
        return carry_out(job, Mode(ends_line=True))

    def _sh(self, line: Line) -> int:
        background = line.rest.endswith("&")
        argv = Line(line.command, line.rest[:-1] if background else line.rest).words()
        if not argv:
            raise UsageProblem("there is no command to run.", remedy=f"Write {COMMANDS['sh'].usage}.")
        job = self._job("shell.cmd", {"argv": argv, "cwd": _here()}, session_id=self.session)
        if background:
            self._hand_in(job, f"job {short_id(job.job_id)} runs in the background")
            return 0
        code = carry_out(job, Mode(command=True))
        if code != 0:
            note(f"exit status {code}.")
        return code

    def _run(self, line: Line) -> int:
        project, _, task = line.rest.strip().partition(" ")
        if not project or not task.strip():
            raise UsageProblem("run takes a project and a task.", remedy=f"Write {COMMANDS['run'].usage}.")
        job = self._job("task.custom", {"task": task.strip()}, project=project, session_id=self.session)
        self._hand_in(job, f"agent:{project}:{job.job_id}")
        return 0

    def _hand_in(self, job: Job, said: str) -> Receipt:
        receipt = self._acceptance.accept(job)
        self.feed.track(job.job_id)
        click.echo(said)
        if receipt.status == SPOOLED:
            note(f"job {short_id(job.job_id)} is spooled; it starts when the store is back.")
        return receipt

    def _borrow(self, line: Line) -> int:
        """Run the command of ``3ox`` of this name, here."""
        from ingress.cli.main import cli

        words = line.words()
        if line.command == "job" and not words:
            raise UsageProblem("job takes the id of a job.", remedy="'jobs' lists them.")
        arguments = [_BORROWED[line.command], *words]
        try:
            with cli.make_context("3ox", arguments) as context:
                code: int | None = cli.invoke(context)
        finally:
            if current_bridge() is not self.bridge:
                # Such a command may choose a connection of its own, with less patience.
                latest = self.bridge.admission.latest
                self.bridge = connect(self._loaded)
                self.bridge.admission.follow_settings(latest)
        return 0 if code is None else code

    def _session(self, line: Line) -> int:
        word = line.rest.strip()
        sessions = Sessions(self.bridge.store, self._loaded.settings.key_prefix)
        if word == "clear":
            click.echo(f"session {self.session} cleared, {sessions.clear(self.session)} messages")
            return 0
        if word == "new":
            # The time for whoever reads it; the rest for two shells that ask within one second.
            word = own_session(self._actor, f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
        if word:
            self.session = session_name(word)
        try:
            facts = sessions.facts(self.session)
        except SessionNotFound:
            click.echo(f"session {self.session}: no messages yet")
            return 0
        click.echo(
            f"session {self.session}: {facts.messages} messages since {facts.began_at},"
            f" {facts.kept} of them kept; 'session clear' forgets them"
        )
        return 0

    def _show_history(self, line: Line) -> int:
        count = int(line.rest) if line.rest.strip().isdecimal() else _HISTORY_SHOWN
        for text in self._history.lines()[-count:] if count else []:
            click.echo(one_line(text))
        return 0

    def _help(self, line: Line) -> int:
        name = line.rest.strip().removeprefix("/")
        if name and name not in COMMANDS:
            raise UsageProblem(f"there is no command {name!r}.", remedy="'help' lists all.")
        wanted = [COMMANDS[name]] if name else list(COMMANDS.values())
        print_fields([(spec.usage, spec.help) for spec in wanted])
        if not name:
            click.echo(
                "\nWhat does not fit a command is a question: 'help me' asks, '/help me' does not."
                "\nCtrl-C cancels what runs, Tab completes, Ctrl-D leaves."
            )
        return 0

    def _exit(self, line: Line) -> int:
        del line
        raise Leave


def _here() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError as error:
        raise UsageProblem("the current directory is gone.", remedy="Start the shell in another.") from error


def own_session(login: str, suffix: str = "") -> str:
    """Give the name of a user's own conversation in the shell.

    Args:
        login: Who; letters that no session has are replaced.
        suffix: Of one among several.
    """
    name = f"shell_{re.sub(r'[^A-Za-z0-9._@+-]', '_', login)}"
    return name[:_SESSION_MAX] if not suffix else f"{name[: _SESSION_MAX - len(suffix) - 1]}_{suffix}"


def session_name(word: str) -> str:
    """Give the word back if a session can be named so.

    Raises:
        UsageProblem: It cannot.
    """
    try:
        return msgspec.convert(word, type=Name)
    except msgspec.ValidationError as error:
        raise UsageProblem(
            f"a session cannot be named {one_line(word)!r}.",
            remedy="Use up to 64 letters, digits and . _ @ : + -, beginning with a letter or digit.",
        ) from error
