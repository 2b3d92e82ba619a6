"""``3ox sh`` as a remote process: what goes in and comes out, byte for byte, and its exit status."""

from __future__ import annotations

import gzip
import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.processes import pid_alive
from tests.cli.support import Cli
from tests.support import eventually, threeox

#: An upper bound; each takes under a second.
_TIMEOUT_S = 60.0


def pipe(cli: Cli, *command: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``3ox sh`` with bytes on its stdin."""
    return subprocess.run(
        threeox("sh", *command),
        env={**cli.environ, **variables},
        input=stdin,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@pytest.fixture(params=["bridge", "storeless"])
def cli(request: pytest.FixtureRequest) -> Cli:
    """The command line of a bridge with a worker, and of one without a store: both behave alike."""
    made: Cli = request.getfixturevalue(request.param)
    return made


def test_bytes_go_through_unchanged(cli: Cli) -> None:
    """Data that is not text, of more than is kept for later, on all three streams (P1, P2, P3)."""
    data = gzip.compress(secrets.token_bytes(3_000_000)) + b"\xff\x00\r\n"
    done = pipe(cli, "--", "tee", "/dev/stderr", stdin=data)
    assert (done.returncode, done.stdout) == (0, data)
    notes, _, errors = done.stderr.partition(data[:10])
    assert data[:10] + errors == data
    assert notes == b"" or notes.startswith(b"3ox: ")


def test_output_beyond_what_is_kept_is_passed_on(bridge: Cli) -> None:
    """All of it is passed on; the job keeps its limit, and says what it left out (P2)."""
    done = pipe(bridge, "--", "sh", "-c", "yes | head -c 3000000; echo $0", "end")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 3_000_004, b"")
    newest = bridge("jobs", "--type", "shell.cmd", "--limit", "1", "--json").json["jobs"][0]
    assert newest["result"]["truncated"]
    kept = bridge("logs", newest["job_id"])
    assert kept.out.endswith("y\nend\n")
    assert "bytes of output omitted here" in kept.err


def test_variables_are_passed_on_by_name(cli: Cli) -> None:
    """``--env NAME`` takes the caller's value as it is, ``--env NAME=VALUE`` another one (P4)."""
    command = ("--env", "FOO", "--env", "BAR=b=2", "--", "sh", "-c", 'echo "$FOO|$BAR"')
    assert pipe(cli, *command, FOO=" bar\r").stdout == b" bar\r|b=2\n"
    refused = pipe(cli, "--env", "NOT_SET", "--", "true")
    assert refused.returncode == 2
    assert b"--env NAME=VALUE".replace(b"NAME", b"NOT_SET") in refused.stderr


def test_the_exit_status_is_that_of_a_shell(cli: Cli, tmp_path: Path) -> None:
    """Not found, not executable, no interpreter, ended by a signal (P5)."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert pipe(cli, "--", "no-such-command").returncode == 127
    assert pipe(cli, "--", "/etc/passwd").returncode == 126
    assert pipe(cli, "--", str(script)).returncode == 126
    assert pipe(cli, "--", "sh", "-c", "kill -TERM $$").returncode == 143


def test_a_task_that_cannot_fit_is_refused(quiet: Cli) -> None:
    """At submission, with the ways to pass it; from stdin as well (P6)."""
    done = quiet("run", "demo", "-", stdin="x" * 150_000)
    assert (done.code, done.out) == (2, "")
    assert "{task_file}" in done.err
    assert quiet("run", "demo", "-", stdin="short\n").out.startswith("agent:demo:")
    assert quiet("jobs", "--json").json["jobs"][0]["payload"] == {"task": "short"}


def test_output_that_cannot_be_written_is_a_failure(cli: Cli) -> None:
    """A full disk, or a closed stdout: exit status 1 and a message, also if the command succeeds."""
    line = f"{' '.join(threeox('sh'))} -- sh -c 'trap \"\" PIPE; echo hi; exit 0'"
    for target, reason in ((">/dev/full", "No space left"), (">&-", "Bad file descriptor")):
        done = subprocess.run(
            ["sh", "-c", f"{line} {target}"],
            env=cli.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 1
        assert f"a part of its output was not passed on: stdout: {reason}" in done.stderr


def test_a_reader_that_has_seen_enough_ends_the_command(cli: Cli) -> None:
    """``3ox sh -- yes | head -1``: the command gets SIGPIPE, and so does its own source."""
    line = f"yes | {' '.join(threeox('sh'))} -- cat | head -1; echo ${{PIPESTATUS[*]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        env=cli.environ,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.stdout == "y\n141 141 0\n"


def test_stdin_that_is_not_read_does_not_hold_the_command_up(cli: Cli) -> None:
    """A command may end without reading; an open pipe that says nothing does not keep the caller waiting."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as reader, os.fdopen(write_fd, "wb"):
        done = subprocess.run(
            threeox("sh", "--", "echo", "done"),
            env=cli.environ,
            stdin=reader,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, b"done\n")
    assert pipe(cli, "--", "true", stdin=bytes(5_000_000)).returncode == 0


def test_a_detached_command_keeps_its_stdin(bridge: Cli) -> None:
    """It becomes a part of the job, bytes included; what is too large is refused."""
    for data, expected in ((b"\xff\x00data", "6"), (b"text", "4")):
        job_id = pipe(bridge, "--detach", "--", "wc", "-c", stdin=data).stdout.decode().strip()
        assert bridge.wait_for_status(job_id, "completed")["result"]["stdout_tail"].strip() == expected
    refused = pipe(bridge, "--detach", "--", "wc", "-c", stdin=bytes(2_000_000))
    assert refused.returncode == 2
    assert b"has more than" in refused.stderr


def test_a_caller_that_is_killed_takes_its_command_along(bridge: Cli, tmp_path: Path) -> None:
    """The job is cancelled with the reason, and no process is left."""
    place = tmp_path / "pid"
    caller = bridge.start("sh", "--", "sh", "-c", f"echo $$ > {place}; sleep 300")
    eventually(lambda: place.exists() and place.read_text().endswith("\n"), 20.0)
    caller.kill()
    newest = bridge("jobs", "--type", "shell.cmd", "--limit", "1", "--json").json["jobs"][0]
    ended = bridge.wait_for_status(newest["job_id"], "cancelled")
    assert "its caller is gone" in ended["reason"]
    assert not pid_alive(int(place.read_text()), None)


def test_what_a_command_waits_for_is_said_within_a_second(quiet: Cli) -> None:
    """Of ``wait`` and ``sh`` alike: no worker, an approval with its rule, another job."""
    home = Path(quiet.environ["BRIDGE_HOME"])
    rule = '[[policy]]\neffect = "approve"\njob_type = "shell.cmd"\ncommand = "rm *"\n'
    (home / "3ox.toml").write_text((home / "3ox.toml").read_text() + rule)
    first = quiet("sh", "--detach", "--", "true").out.strip()
    cases: Mapping[tuple[str, ...], tuple[str, ...]] = {
        ("wait", first): ("no worker is running", "'3ox up'"),
        ("sh", "--", "rm", "x"): ("waiting for approval (rule 1)", "'3ox approve "),
        ("sh", "--after", first, "--", "true"): ("is held: waiting for 1 other job to complete",),
    }
    for command, texts in cases.items():
        process = quiet.start(*command)
        assert process.stderr is not None
        said = process.stderr.readline()
        process.kill()
        process.communicate(timeout=15)
        assert all(text in said for text in texts), said


def test_a_command_line_is_answered_with_the_form_that_runs_it(storeless: Cli) -> None:
    """``sh -c LINE`` and a whole line as one word: the remedy is what to type (D28)."""
    form = "3ox sh -- sh -c 'echo hi | wc -c'"
    option = storeless("sh", "-c", "echo hi | wc -c")
    assert option.code == 2
    assert form in option.err
    word = storeless("sh", "echo hi | wc -c")
    assert word.code == 127
    assert form in word.err
