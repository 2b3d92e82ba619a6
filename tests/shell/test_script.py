"""The shell without a terminal: lines in, answers out."""

from __future__ import annotations

import re
import uuid

from tests.cli.support import Cli


def test_lines_are_carried_out_in_order(bridge: Cli) -> None:
    """Questions, commands and background jobs; answers on stdout, everything else on stderr."""
    session = f"s{uuid.uuid4().hex[:8]}"
    done = bridge(
        "shell",
        "--session",
        session,
        stdin="hello\n\nsh echo 'a  b'\nrun demo tidy up\nwhat were we talking about?\nsession\nexit\nfail\n",
    )
    assert done.code == 0, done.err
    assert done.out.startswith("You asked: hello \na  b\nagent:demo:")
    assert f"Session {session} has 2 messages" in done.out
    assert f"session {session}: 2 messages since" in done.out
    found = re.search(r"agent:demo:(\w+)", done.out)
    assert found is not None
    job = bridge.wait_for_status(found.group(1), "completed")
    assert (job["source"], job["trust"], job["payload"]) == ("shell", "operator", {"task": "tidy up"})
    asked = bridge("sessions", "show", session, "--json").json["messages"][0]
    assert asked["source"] == "shell"


def test_the_last_line_decides_the_exit_code(bridge: Cli) -> None:
    """As in other shells; a line that fails does not stop the next one."""
    assert bridge("shell", stdin="sh sh -c 'exit 7'").code == 7
    done = bridge(
        "shell", stdin="sh sh -c 'exit 7'\njob zzzzzzzz\nsh echo 'a\n/nothing\nrun nowhere x\nsh echo on\n"
    )
    assert (done.code, done.out) == (0, "on\n")
    for complaint in (
        "exit status 7",
        "not found",
        "Close the quote",
        "Unknown command '/nothing'",
        "'nowhere'",
    ):
        assert complaint in done.err


def test_a_background_command_is_announced(bridge: Cli) -> None:
    """Its start and its end are announced; the list has it with the source ``shell``."""
    done = bridge("shell", stdin="sh sh -c 'exit 3' &\nsh sleep 1.5\nsh echo end\n")
    found = re.search(r"job (\w{8}) runs in the background", done.out)
    assert found is not None
    assert f"job {found.group(1)} failed after" in done.err
    assert bridge.job(found.group(1))["source"] == "shell"


def test_commands_of_3ox_work_here(bridge: Cli) -> None:
    """With their options and JSON; a wrong option is reported and does not end the shell."""
    done = bridge("shell", stdin="sh echo one\njobs --type shell.cmd --limit 1\njobs --nonsense\nstatus\n")
    assert done.code == 0, done.err
    assert "shell.cmd" in done.out
    assert "WORKER" in done.out
    assert "--nonsense" in done.err


def test_a_line_that_is_too_long_is_refused_whole(bridge: Cli) -> None:
    """Its tail is not treated as a line."""
    done = bridge("shell", stdin=f"ask {'x' * 1_100_000} sh echo no\nsh echo no\n")
    assert done.code == 2
    assert done.out == ""
    assert "bytes" in done.err


def test_without_a_store(storeless: Cli) -> None:
    """Questions and commands run in-process, background jobs are spooled."""
    done = storeless("shell", stdin="hello\nsh echo hi\nrun demo tidy\njobs\nsh echo end\n")
    assert done.code == 0, done.err
    assert "You asked: hello" in done.out
    assert done.out.endswith("end\n")
    assert "Until it is back" in done.err
    assert "is spooled; it starts when the store is available again" in done.err
    assert "1 background job may still be running" in done.err


def test_a_name_that_no_session_can_have(bridge: Cli) -> None:
    """It is a usage error, at the start and later."""
    assert bridge("shell", "--session", "a b").code == 2
    assert bridge("shell", stdin="session ../x\n").code == 2
