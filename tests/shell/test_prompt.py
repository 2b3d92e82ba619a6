"""The shell on a real terminal: prompt, toolbar, completion, Ctrl-C, notices, outages of the store."""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.cli.conftest import settle_workspace
from tests.cli.support import Cli
from tests.shell.conftest import Open
from tests.shell.terminal import Terminal
from tests.support import RunningValkey, clean_environ, eventually

CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"


def job_named(terminal: Terminal, before: str) -> str:
    """Return the job id that is drawn after a text."""
    terminal.expect(before)

    def named() -> re.Match[str] | None:
        terminal.look()
        return re.match(r"(\w{8,})\s", terminal.text[terminal.seen :])

    found = eventually(named)
    assert found is not None
    return str(found.group(1))


def leave(terminal: Terminal) -> None:
    """Press Ctrl-D at the prompt; the shell exits with 0.

    One that is pressed while a command still ends goes to nobody, hence another.
    """

    def gone() -> bool:
        terminal.type(CTRL_D)
        return terminal.has_ended(0.5)

    eventually(gone, 15.0)
    assert terminal.wait() == 0


def test_a_question_is_answered_and_the_shell_goes_on(bridge: Cli, open_shell: Open) -> None:
    """By default a line is a question; the answer streams, the next prompt comes, Ctrl-D leaves."""
    shell = open_shell(bridge.environ)
    shell.line("session new")
    shell.line("how are you")
    shell.expect("You asked: how are you")
    shell.line("sh echo from-$0")
    shell.expect("from-$0")
    shell.expect("from-$0")
    leave(shell)


def test_ctrl_c_cancels_the_question_and_not_the_shell(slow: Cli, open_shell: Open) -> None:
    """The job is cancelled in the store, the next question is answered."""
    shell = open_shell(slow.environ)
    shell.line("session new")
    shell.line("think hard")
    shell.expect("Well")
    shell.type(CTRL_C)
    job_id = job_named(shell, "3ox: job ")
    shell.expect("cancelled")
    assert slow.job(job_id)["status"] == "cancelled"
    shell.line("and now")
    shell.expect("You asked: and now")
    shell.line("exit")
    assert shell.wait() == 0


def test_new_sessions_are_new(bridge: Cli, open_shell: Open) -> None:
    """Two that start within one second differ."""
    shell = open_shell(bridge.environ)
    names = []
    for _ in range(2):
        shell.line("session new")
        shell.expect("session shell_")
        names.append(shell.expect(": no messages yet"))
    assert names[0] != names[1]
    leave(shell)


def test_ctrl_c_at_the_prompt_gives_up_the_line(bridge: Cli, open_shell: Open) -> None:
    """The discarded line is not run."""
    shell = open_shell(bridge.environ)
    shell.type("sh touch never-made")
    shell.expect("never-made")
    shell.type(CTRL_C)
    shell.line("sh echo still-here")
    shell.expect("still-here")
    shell.expect("still-here")
    shell.line("history 2")
    shell.expect("sh echo still-here")
    shell.line("quit")
    assert shell.wait() == 0
    assert "touch never-made" not in bridge("shell", stdin="history\n").out


def test_a_background_job_shows_in_the_toolbar_and_is_announced(bridge: Cli, open_shell: Open) -> None:
    """Counted while it runs, announced above the prompt when it finishes, without a key press."""
    gate = Path(bridge.environ["BRIDGE_HOME"]) / "WORKDESK" / f"gate-{uuid.uuid4().hex[:8]}"
    shell = open_shell(bridge.environ)
    shell.expect("workers: 1")
    shell.line(f"run demo wait for {gate.name}")
    job_id = job_named(shell, "agent:demo:")
    shell.see("1 running")
    shell.type("half a line")
    gate.touch()
    shell.expect(f"job {job_id[-8:]} completed after")
    shell.see("0 running")
    shell.type(CTRL_C)
    leave(shell)
    assert bridge.job(job_id)["source"] == "shell"


def test_tab_completes_commands_projects_and_jobs(bridge: Cli, open_shell: Open) -> None:
    """Each at its place in the line."""
    job_id = bridge("sh", "--detach", "--", "true").out.strip()
    bridge.wait_for_status(job_id, "completed")
    shell = open_shell(bridge.environ)
    shell.type(f"run web{TAB}")
    shell.see("run website")
    shell.line(" tidy up")
    shell.expect("agent:website:")
    shell.expect("3ox>")
    shell.type(f"sta{TAB}")
    shell.see("status")
    shell.line("")
    shell.expect("WORKER")
    shell.expect("3ox>")
    shell.type(f"job {job_id[-8:-2]}{TAB}")
    shell.see(f"job {job_id[-8:]}")
    shell.line("")
    shell.expect(job_id)
    leave(shell)


def test_lines_are_remembered_by_the_next_shell(bridge: Cli, open_shell: Open) -> None:
    """The up arrow recalls the last line; a line that begins with a space is not recorded."""
    word = f"word-{uuid.uuid4().hex[:8]}"
    first = open_shell(bridge.environ)
    first.line(f"sh echo {word}")
    first.expect(word)
    first.expect(word)
    first.line(" sh echo secret")
    first.expect("secret")
    leave(first)
    second = open_shell(bridge.environ)
    second.line("\x1b[A")
    second.expect(f"\n{word}")
    leave(second)


def test_a_polite_kill_ends_the_shell(bridge: Cli, open_shell: Open) -> None:
    """At the prompt, and while a job runs, which is cancelled; the exit code names the signal."""
    idle = open_shell(bridge.environ)
    idle.process.send_signal(signal.SIGTERM)
    assert idle.wait() == 128 + signal.SIGTERM
    assert idle.is_tidy
    busy = open_shell(bridge.environ)
    busy.line("sh sh -c 'echo begun; sleep 60'")
    busy.expect("\r\nbegun")
    busy.process.send_signal(signal.SIGTERM)
    job_id = job_named(busy, "3ox: job ")
    assert busy.wait() == 128 + signal.SIGTERM
    assert bridge.job(job_id)["status"] == "cancelled"


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[tuple[dict[str, str], RunningValkey]]:
    """A workspace and a running store of one test, without a worker."""
    home = tmp_path / "home"
    settle_workspace(home)
    environ = clean_environ({"BRIDGE_HOME": str(home)})
    loaded = load_settings(environ=environ)
    loaded.workspace.create()
    store = RunningValkey(loaded)
    store.start()
    yield environ, store
    store.stop()


def test_an_outage_of_the_store(own_store: tuple[dict[str, str], RunningValkey], open_shell: Open) -> None:
    """Both are announced; meanwhile questions are answered in-process and background jobs are spooled."""
    environ, store = own_store
    shell = open_shell(environ)
    shell.expect("workers: 0")
    store.kill()
    shell.expect("the store is unavailable")
    shell.line("are you there")
    shell.expect("You asked: are you there")
    shell.line("run demo tidy up")
    job_id = job_named(shell, "agent:demo:")
    shell.expect("is spooled")
    store.start()
    shell.expect("the store is back")
    shell.see("1 waiting")
    loaded = load_settings(environ=environ)
    job = Bridge(loaded).reader.job(job_id)
    assert (job.status, job.source, job.trust) == ("queued", "shell", "operator")
    leave(shell)
