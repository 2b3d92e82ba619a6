"""The frame of the command line: help, errors, exit codes, what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingress.cli.main import MODULES, cli
from tests.cli.help_pages import DOCUMENT, render
from tests.cli.support import Cli
from tests.support import threeox


def test_version_is_shown(quiet: Cli) -> None:
    """``--version`` names the program and its version."""
    code, out, err = quiet("--version")
    assert (code, err) == (0, "")
    assert out.split()[0] == "3ox"
    assert out.split()[1][0].isdigit()


def test_help_lists_every_command(quiet: Cli) -> None:
    """``--help`` lists each command with its full summary."""
    code, out, _ = quiet("--help")
    assert code == 0
    listed = {
        line.split()[0]: line for line in out.partition("Commands:")[2].splitlines() if line[2:3].isalpha()
    }
    assert set(MODULES) <= set(listed)


def test_no_command_shows_help_and_is_wrong_use(quiet: Cli) -> None:
    """Without a command, help is printed on stderr; the exit code is 2."""
    code, out, err = quiet()
    assert (code, out) == (2, "")
    assert "Usage: 3ox" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobz",), "Unknown command 'jobz'. Did you mean 'jobs'?"),
        (("frobnicate",), "Unknown command 'frobnicate'. '3ox --help'"),
        (("run", "demo", "x", "--prioritty", "3"), "--priority"),
        (("run", "demo"), "TASK"),
        (("run", "demo", "x", "--priority", "11"), "is not a priority from 1 to 10"),
        (("run", "demo", "x", "--timeout", "nan"), "'nan' must be a finite number"),
        (("run", "demo", "x", "--timeout", "0"), "'0' must be above 0"),
        (("sh", "--timeout", "soon", "--", "ls"), "'soon' is not a number of seconds"),
        (("sh",), "CMD"),
        (("jobs", "--type", "shell.cmt"), "Did you mean 'shell.cmd'?"),
        (("jobs", "--status", "done"), "'done' is not one of"),
        (("jobs", "abc", "--limit", "3"), "cannot be combined with --limit"),
        (("jobs", "--watch", "--json"), "cannot be combined with --json"),
        (("receipt", "abc", "def"), "extra argument (def). See '3ox receipt --help'"),
        (("retry",), "job IDs, or --all"),
        (("retry", "abc", "--all"), "job IDs, or --all"),
        (("retry", "abc", "--type", "ask"), "need --all"),
        (("retry", "--all", "--type", "asc"), "Did you mean 'ask'?"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(quiet: Cli, arguments: tuple[str, ...], said: str) -> None:
    """Wrong use exits with 2 and one line with the error and the remedy."""
    code, out, err = quiet(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("3ox: ")
    assert err.count("\n") == 1
    assert said in err


def test_settings_error_names_the_nearest_key(quiet: Cli) -> None:
    """A misspelt setting makes any command exit with 2 and one line."""
    broken = Cli({**quiet.environ, "BRIDGE_WORKRES": "3"})
    code, out, err = broken("jobs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "BRIDGE_WORKERS" in err


def test_text_that_is_no_utf8_is_refused(quiet: Cli) -> None:
    """An argument that is not valid UTF-8 is a clear error, not a traceback."""
    done = subprocess.run(
        [*threeox("run", "demo"), b"caf\xe9"], env=quiet.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "3ox: The task is not valid UTF-8. Pass it in a file.\n"


def test_closed_pipe_is_quiet(quiet: Cli) -> None:
    """When the reader has closed stdout, the command exits as a shell expects, without output."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = quiet.start("jobs", stdout=writing)
    finally:
        os.close(writing)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (141, "")


def test_full_disk_is_one_line(quiet: Cli) -> None:
    """When stdout cannot be written, the command reports it and exits with 1."""
    with Path("/dev/full").open("w") as full:
        process = quiet.start("jobs", stdout=full.fileno())
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "3ox: The disk is full. Free some space.\n")


def test_closed_stdout_is_no_error(quiet: Cli) -> None:
    """A command works without a stdout."""
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *threeox("sh", "--detach", "--", "true")],
        env=quiet.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert quiet("jobs", "--json").json["summary"]["queued"] == 1


_INTERRUPTED_WHILE_IMPORTING = """
import os, signal, sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == "ingress.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
sys.argv = ["3ox", "jobs", "--watch"]
from ingress.cli.start import main
main()
"""


def test_ctrl_c_before_the_start_is_quiet(quiet: Cli) -> None:
    """Ctrl-C during imports exits with 130 and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_WHILE_IMPORTING],
        env=quiet.environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_shell_completion(quiet: Cli) -> None:
    """Commands and options can be completed by the shell."""
    asked = {"_3OX_COMPLETE": "bash_complete", "COMP_WORDS": "3ox re", "COMP_CWORD": "1"}
    _, out, _ = Cli({**quiet.environ, **asked})()
    assert [line.rpartition(",")[2] for line in out.splitlines()] == ["receipt", "retry", "rest"]


_FAST_PATH = """
import sys
from ingress.cli.start import fast_path
assert fast_path(["run", "demo", "x"]) == 0
print(*sys.modules)
"""
#: Libraries that take milliseconds to import; ``_hashlib`` is OpenSSL.
_HEAVY = """
    _hashlib asyncio click difflib dramatiq email http importlib.metadata inspect jsonschema_rs logging redis
    rich ssl structlog subprocess typing_extensions
"""
#: What other commands need: reading, following, spooling, deciding.
_FOR_OTHERS = """
    ingress.cli.actions ingress.cli.jobs ingress.cli.main ingress.cli.services ingress.cli.status
    ingress.core.bridge ingress.core.lookup middleware.broker.approvals middleware.job.follow
    middleware.job.reader middleware.job.signature ops.plugins ops.spool ops.store.channels
"""
#: Modules of ours that ``3ox run`` loads; each takes 0.1 to 0.2 ms of the 40 ms, however small. Two of them
#: declare job types: that of the job, and the one that [types] of the settings names.
_OWN_MODULES_MAX = 57


def test_run_imports_nothing_that_it_does_not_need(quiet: Cli) -> None:
    """Submitting a job loads neither other commands nor heavy libraries, and few modules in all.

    It keeps ``3ox run`` below 1.3 times ``python -c 'import click'``, which ``make bench`` measures.
    """
    done = subprocess.run(
        [sys.executable, "-c", _FAST_PATH], env=quiet.environ, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split()[1:])  # the first word is the job's line
    assert "ingress.core.submitter" in loaded
    assert loaded & {*_HEAVY.split(), *_FOR_OTHERS.split()} == set()
    own = {name for name in loaded if name.partition(".")[0] in {"actors", "ingress", "middleware", "ops"}}
    assert len(own) <= _OWN_MODULES_MAX, sorted(own)


def test_help_does_not_look_for_plug_ins(quiet: Cli) -> None:
    """``3ox --help`` imports every command, and nothing that reads the metadata of installed packages."""
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ingress.cli.start", "--help"],
        env=quiet.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ingress.core.ledger_proofs" in shown.stderr
    assert "ops.plugins" not in shown.stderr
    assert "importlib.metadata" not in shown.stderr


def test_help_pages_are_what_the_commands_show(quiet: Cli) -> None:
    """A page of docs/reference/cli.md is word for word what a real process prints."""
    narrow = Cli({**quiet.environ, "COLUMNS": "80"})
    for arguments in ((), ("sh",), ("jobs",)):
        assert narrow(*arguments, "--help").out in render()


def test_help_pages_are_committed() -> None:
    """docs/reference/cli.md holds the help of every command; ``python -m tests.cli.help_pages`` renews it."""
    assert DOCUMENT.read_text() == render()


@pytest.mark.parametrize("name", list(MODULES))
def test_every_command_explains_its_options(name: str) -> None:
    """Each command has a summary, and a help text for each option."""
    import click

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(limit=1000).endswith(".")
    bare = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert bare == []
