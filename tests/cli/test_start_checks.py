"""What stops ``3ox up``: found before anything is started, and listed by ``3ox doctor``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.cli.start_checks import require_startable
from ingress.core.status_report import with_configured
from ops.errors import BridgeError
from ops.settings.load import load_settings
from ops.supervision.state_file import ProgramState, SupervisorState, claim, running_pid, write_state
from ops.workspace import Workspace
from tests.support import ROOT, clean_environ, run_3ox
from tests.tools import require_tool

SCHEDULES = """
[[schedule]]
id = "beat"
cron = "99 * * * *"
job = { job_type = "heartbeat" }
"""
WEBHOOK = '[[webhook]]\nname = "ci"\nurl = "{url}"\n'
NOTIFY = '[[notify]]\nurls = ["nope://x", "env:NOT_SET_HERE"]\n'
NOPE = """
[[schedule]]
id = "unknown"
every = "1h"
job = { job_type = "nope" }

[types."shell.cdm"]
timeout_s = 3
"""


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_up_refuses_before_it_starts_anything(
    workspace: Workspace, taken_port: int, environ: dict[str, str]
) -> None:
    """One line with the reason, no log lines, no process."""
    environ = clean_environ({"BRIDGE_HOME": str(workspace.home), "BRIDGE_API_PORT": f" {taken_port}\r"})
    ran = run_3ox("up", "--detach", environ=environ)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(
        f"3ox: The REST API cannot listen on 127.0.0.1:{taken_port}: Address already"
    )
    assert ran.stderr.count("\n") == 1
    assert running_pid(workspace) is None
    assert not workspace.log_file.exists()


@pytest.mark.parametrize(
    "problem",
    [
        (SCHEDULES, {}, r"cron of the schedule 'beat' .*99"),
        (NOPE, {}, r"Unknown job type 'shell.cdm' in \[types\]"),
        (WEBHOOK.format(url="http://a:b/secret"), {}, r"\[\[webhook\]\] ci: The URL is not valid"),
        ("", {"HTTPS_PROXY": "gopher://x"}, "HTTPS_PROXY names a proxy with the unsupported protocol"),
        ("", {"SSL_CERT_FILE": "/nowhere"}, "SSL_CERT_FILE names '/nowhere', which cannot be read"),
        ("", {"BRIDGE_API_HOST": "192.0.2.1"}, "The REST API cannot listen on 192.0.2.1:0"),
        ("", {"BRIDGE_STORE_PORT": "{port}"}, "The store cannot listen on 127.0.0.1:"),
    ],
)
def test_each_problem_is_named(
    workspace: Workspace,
    taken_port: int,
    monkeypatch: pytest.MonkeyPatch,
    problem: tuple[str, dict[str, str], str],
) -> None:
    """With its place and a remedy."""
    toml, environ, complaint = problem
    workspace.settings_file.write_text(toml)
    monkeypatch.setenv("BRIDGE_API_PORT", "0")
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(port=taken_port))
    with pytest.raises(BridgeError, match=complaint) as raised:
        require_startable(load_settings(workspace.home))
    assert raised.value.remedy
    assert "secret" not in str(raised.value)


def test_doctor_lists_all_of_them(workspace: Workspace, taken_port: int) -> None:
    """Ports, schedules, types and proxies in one run; it exits 1."""
    workspace.settings_file.write_text(SCHEDULES + NOPE + NOTIFY)
    environ = {
        "BRIDGE_HOME": str(workspace.home),
        "BRIDGE_API_PORT": str(taken_port),
        "ALL_PROXY": "ftp://x",
        "BRIDGE_TELEGRAM_TOKEN": "1:x",
    }
    ran = run_3ox("doctor", "--json", environ=clean_environ(environ))
    assert ran.returncode == 1
    checks = json.loads(ran.stdout)["checks"]
    bad = {check["name"] for check in checks if check["verdict"] == "bad"}
    assert bad == {"schedules", "schedule unknown", "types", "network", "ports", "notify 1"}
    assert "NOT_SET_HERE is not set" in {check["found"] for check in checks}
    environ["BRIDGE_TELEGRAM_TOKEN"] = "1: x"
    ran = run_3ox("doctor", environ=clean_environ(environ))
    assert ran.returncode == 1
    assert "BRIDGE_TELEGRAM_TOKEN has the wrong form" in ran.stdout


def test_a_wrong_proxy_ends_the_bot_with_one_sentence(environ: dict[str, str]) -> None:
    """It names the variable; before, the bot was restarted for ever."""
    ran = run_3ox("telegram", environ={**environ, "BRIDGE_TELEGRAM_TOKEN": "1:x", "ALL_PROXY": "socks9://x"})
    assert ran.returncode == 2
    assert "ALL_PROXY names a proxy with the unsupported protocol 'socks9'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_status_lists_what_is_configured_and_does_not_run(
    workspace: Workspace, environ: dict[str, str]
) -> None:
    """A bot that keeps exiting, with its last words; without a supervisor, what the settings ask for."""
    environ = {**environ, "BRIDGE_TELEGRAM_TOKEN": "1:x"}
    loaded = load_settings(environ=environ)
    beating = {"name": "telegram", "host": "h", "pid": 7, "healthy": True, "heartbeat_age_s": 0.1}
    with claim(workspace, grace_s=0.1):
        programs = [
            ProgramState(name="store", ready=False),
            ProgramState(name="rest", pid=5, ready=True),
            ProgramState(name="telegram", pid=7, restarts=3, said="ALL_PROXY names ..."),
        ]
        home = os.path.realpath(workspace.home)
        state = SupervisorState(
            pid=os.getpid(), start_time=None, instance="i", since="", home=home, programs=programs
        )
        write_state(workspace, state)
        (row,) = with_configured(loaded, [beating])
    assert (row["name"], row["pid"], row["healthy"]) == ("telegram", 7, False)
    assert row["reason"] == "restarted 3 times: ALL_PROXY names ..."
    ran = run_3ox("status", environ=environ)
    assert ran.returncode == 0
    assert [line.split()[0] for line in ran.stdout.splitlines() if "configured, and not running" in line] == [
        "telegram"
    ]
    assert with_configured(loaded, [beating]) == [beating]


#: Runs a command with a disk of 20 MB on a folder, of which a file occupies all but some.
FULL = """
set -e
mount -t tmpfs -o size=20m full "$1"
mkdir "$1/home"
head -c "$2" /dev/zero > "$1/filler" 2>"$1/../filled" || true
shift 2
for command in "up --detach" "doctor" "status"; do
    echo "== $command"
    "$@" $command || echo "exit $?"
done
"""


@pytest.mark.parametrize("filler_bytes", ["30000000", "19000000"], ids=["no byte free", "1 MB free"])
def test_a_full_disk_is_named(tmp_path: Path, filler_bytes: str) -> None:
    """As what it is, with the folder; no process is left, and nothing that is broken when there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["--user", "--map-root-user"] if os.geteuid() else []
    ran = subprocess.run(
        [
            *(require_tool("unshare"), "--mount", *namespace, "sh", "-c", FULL, "sh", str(disk)),
            *(filler_bytes, sys.executable, "-P", str(ROOT / "cmd_bridge.py")),
        ],
        # As many containers set them; compiled modules then go to the workspace.
        env=clean_environ({"BRIDGE_HOME": f"{disk}/home", "PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout
    first = ran.stderr.splitlines()[0]
    assert first.startswith("3ox: The disk is full: ")
    assert f"{disk}/home" in first
    _, up, doctor, _ = ran.stdout.split("== ")
    assert up.splitlines()[-1] == "exit 1"
    assert doctor.splitlines()[-1] == "exit 1"
    assert "The disk is full" in doctor


def test_compiled_modules_are_not_kept_in_part(tmp_path: Path) -> None:
    """A module that was compiled in part while the disk was full is named, with what to remove."""
    cache = tmp_path / "cache"
    kept = {"PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    environ = clean_environ({"BRIDGE_HOME": str(tmp_path / "home"), **kept})
    arguments = [sys.executable, "-P", str(ROOT / "cmd_bridge.py"), "config"]
    assert (
        subprocess.run(arguments, env=environ, timeout=60, check=False, capture_output=True).returncode == 0
    )
    compiled = next(cache.rglob("ingress/cli/main.*.pyc"))
    compiled.write_bytes(compiled.read_bytes()[:100])
    ran = subprocess.run(arguments, env=environ, timeout=60, check=False, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("3ox: The disk is full, or was when Python compiled the bridge")
    assert str(cache) in ran.stderr
