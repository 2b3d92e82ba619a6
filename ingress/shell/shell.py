"""Run the lines of a shell session, read from a prompt or a file."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from ingress.core.acceptance import Acceptance
from ingress.core.bridge import Bridge, connect, current_bridge
from ingress.core.local_user import login_name, utf8
from ingress.core.run_and_follow import Mode, Terminated, run_and_follow
from ingress.core.spooled_jobs import SPOOLED
from ingress.core.terminal import note, print_fields
from ingress.core.text import count_of, one_line, short_id
from ingress.shell.history import LineHistory
from ingress.shell.monitor import BridgeMonitor
from ingress.shell.parser import COMMANDS, ParsedLine, parse_line
from middleware.job.attachment import attached_fields
from middleware.job.base import Name
from middleware.job.schema import Job, make_job
from middleware.job.sessions import Sessions
from ops.errors import BridgeError, SessionNotFound, UsageProblem
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings

SOURCE = "shell"
_HISTORY_SHOWN = 20
_SESSION_MAX = 64
#: Commands that are run as commands of ``3ox``, with their options.
_CLI_COMMANDS = {"jobs": "jobs", "job": "jobs", "logs": "logs", "cancel": "cancel", "status": "status"}


class LeaveShell(Exception):
    """The user leaves the shell."""


class Shell:
    """A shell: its bridge, its session, its background jobs.

    Args:
        loaded: The settings.
        history: The lines typed before.
        session: Session to continue; the user's own by default.
        announce: Called from threads with lines about background jobs and the store.
        on_snapshot: Called from a thread when the monitor has a new snapshot.
        run_command: Runs a command line of ``3ox`` and returns its exit code; raises its errors.

    Attributes:
        session: Name of the current session.
        bridge: The bridge.
        monitor: Snapshot of the bridge, for toolbar and completion.

    Raises:
        UsageProblem: The name of the session is not valid.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        history: LineHistory,
        *,
        session: str | None = None,
        announce: Callable[[str], None],
        on_snapshot: Callable[[], None] = lambda: None,
        run_command: Callable[[list[str]], int],
    ) -> None:
        self._loaded = loaded
        self._run_command = run_command
        self._history = history
        self._actor = login_name()
        self.session = own_session(self._actor) if session is None else check_session_name(session)
        self.bridge: Bridge = connect(loaded)
        self.bridge.admission.follow_settings(LiveSettings(loaded).now)
        self._acceptance = Acceptance(self.bridge)
        self.monitor = BridgeMonitor(self.bridge, announce, on_snapshot)
        self._handlers: dict[str, Callable[[ParsedLine], int]] = {
            "ask": self._ask,
            "sh": self._sh,
            "run": self._run,
            "session": self._session,
            "history": self._show_history,
            "help": self._help,
            "exit": self._exit,
            **dict.fromkeys(_CLI_COMMANDS, self._run_cli),
        }

    def open(self) -> None:
        """Start to monitor the bridge, and to hand over the spool."""
        self.monitor.start()
        self._acceptance.start()

    def close(self) -> None:
        """Stop; background jobs continue, and their ids are shown."""
        self.monitor.stop()
        self._acceptance.stop()
        if left := self.monitor.tracked():
            names = ", ".join(map(short_id, left[:10]))
            note(f"{count_of(len(left), 'background job')} may still be running: {names}.")

    def run_line(self, text: str) -> int:
        """Run one line; errors are shown and do not end the shell.

        Args:
            text: The line as typed.

        Returns:
            An exit code, as of a command of ``3ox``.

        Raises:
            LeaveShell: The line is ``exit``.
            Terminated: The process got SIGTERM or SIGHUP.
        """
        try:
            line = parse_line(utf8(text, "the line"))
            return 0 if line is None else self._handlers[line.command](line)
        except Terminated:
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
        # Lines come from a terminal or a file of the user, who has the trust of an operator.
        return make_job(job_type, payload, source=SOURCE, actor=self._actor, trust="operator", **fields)

    def _ask(self, line: ParsedLine) -> int:
        if not line.rest:
            raise UsageProblem(
                "'ask' needs a question.", remedy="Write it after 'ask', or without that word."
            )
        job = self._job("ask", {"prompt": line.rest}, session_id=self.session)
        return run_and_follow(job, Mode(ends_line=True))

    def _sh(self, line: ParsedLine) -> int:
        background = line.rest.endswith("&")
        argv = ParsedLine(line.command, line.rest[:-1] if background else line.rest).words()
        if not argv:
            raise UsageProblem("'sh' needs a command.", remedy=f"Write {COMMANDS['sh'].usage}.")
        payload: dict[str, object] = {"argv": argv, "cwd": _here()}
        if background:
            job = self._job("shell.cmd", payload, session_id=self.session)
            self._submit(job, f"job {short_id(job.job_id)} runs in the background")
            return 0
        # Its standard input would be that of the shell.
        fields = attached_fields(self.bridge.admission.latest(), reads_input=False, timeout_s=None)
        code = run_and_follow(self._job("shell.cmd", payload, session_id=self.session, **fields), Mode())
        if code != 0:
            note(f"exit status {code}.")
        return code

    def _run(self, line: ParsedLine) -> int:
        project, _, task = line.rest.strip().partition(" ")
        if not project or not task.strip():
            raise UsageProblem("'run' needs a project and a task.", remedy=f"Write {COMMANDS['run'].usage}.")
        job = self._job("task.custom", {"task": task.strip()}, project=project, session_id=self.session)
        self._submit(job, f"agent:{project}:{job.job_id}")
        return 0

    def _submit(self, job: Job, text: str) -> None:
        """Submit a background job, announce its end later, and print a line about it."""
        receipt = self._acceptance.accept(job)
        self.monitor.track(job.job_id)
        click.echo(text)
        if receipt.status == SPOOLED:
            note(f"job {short_id(job.job_id)} is spooled; it starts when the store is available again.")

    def _run_cli(self, line: ParsedLine) -> int:
        """Run the command of ``3ox`` with this name in this process."""
        words = line.words()
        if line.command == "job" and not words:
            raise UsageProblem("'job' needs a job id.", remedy="'jobs' lists the ids.")
        arguments = [_CLI_COMMANDS[line.command], *words]
        try:
            return self._run_command(arguments)
        finally:
            if current_bridge() is not self.bridge:
                # The command may have replaced the current bridge by one with another timeout.
                latest = self.bridge.admission.latest
                self.bridge = connect(self._loaded)
                self.bridge.admission.follow_settings(latest)

    def _session(self, line: ParsedLine) -> int:
        word = line.rest.strip()
        sessions = Sessions(self.bridge.store, self._loaded.settings.key_prefix)
        if word == "clear":
            click.echo(f"session {self.session}: {sessions.clear(self.session)} messages deleted")
            return 0
        if word == "new":
            # The time is for readers; the random part keeps two shells apart that do this in the same second.
            word = own_session(self._actor, f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
        if word:
            self.session = check_session_name(word)
        try:
            facts = sessions.facts(self.session)
        except SessionNotFound:
            click.echo(f"session {self.session}: no messages yet")
            return 0
        click.echo(
            f"session {self.session}: {facts.messages} messages since {facts.began_at},"
            f" {facts.kept} of them kept; 'session clear' deletes them"
        )
        return 0

    def _show_history(self, line: ParsedLine) -> int:
        count = int(line.rest) if line.rest.strip().isdecimal() else _HISTORY_SHOWN
        for text in self._history.lines()[-count:] if count else []:
            click.echo(one_line(text))
        return 0

    def _help(self, line: ParsedLine) -> int:
        name = line.rest.strip().removeprefix("/")
        if name and name not in COMMANDS:
            raise UsageProblem(f"Unknown command {name!r}.", remedy="'help' lists the commands.")
        wanted = [COMMANDS[name]] if name else list(COMMANDS.values())
        print_fields([(spec.usage, spec.help) for spec in wanted])
        if not name:
            click.echo(
                "\nA line that is not a command is a question: 'help me' asks, '/help me' does not."
                "\nCtrl-C cancels the running job, Tab completes, Ctrl-D leaves."
            )
        return 0

    def _exit(self, line: ParsedLine) -> int:
        del line
        raise LeaveShell


def _here() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError as error:
        raise UsageProblem(
            "The current directory does not exist any more.", remedy="Start the shell in another."
        ) from error


def own_session(login: str, suffix: str = "") -> str:
    """Return the name of a user's session in the shell.

    Args:
        login: Login name; characters that are not allowed are replaced.
        suffix: Distinguishes several sessions of the user.
    """
    name = f"shell_{re.sub(r'[^A-Za-z0-9._@+-]', '_', login)}"
    return name[:_SESSION_MAX] if not suffix else f"{name[: _SESSION_MAX - len(suffix) - 1]}_{suffix}"


def check_session_name(word: str) -> str:
    """Return a session name unchanged.

    Raises:
        UsageProblem: The name is not valid.
    """
    try:
        return msgspec.convert(word, type=Name)
    except msgspec.ValidationError as error:
        raise UsageProblem(
            f"The session name {one_line(word)!r} is not valid.",
            remedy="Use up to 64 letters, digits and . _ @ : + -, beginning with a letter or digit.",
        ) from error
