"""The bridge of ``3ox demo``: complete, in a temporary workspace, removed at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from cmd_bridge import own_argv
from ingress.core.bridge import Bridge
from ops.environment import for_child
from ops.errors import StartFailed, WaitTimeout
from ops.processes import find_marked, stop_processes
from ops.settings.load import ENV_FOREIGN, LoadedSettings, load_settings
from ops.supervision.launch import launch_argv
from ops.workspace import Workspace

#: The only allowed chat.
CHAT_ID = 4242
#: Name of the webhook.
HOOK = "greeting"
START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 30.0
_KEYS_PER_SCAN = 500
_READY = b"The bridge is up."

_ANSWERS = """\
import sys

question = sys.stdin.read().strip().splitlines()[-1]
print(f"I am a small program with one answer. You asked: {question}")
"""
_SETTINGS = """\
workers = 1
threads = 4
worker_shutdown_timeout_s = 5.0

[ask]
providers = ["command"]

[ask.command]
argv = [{python}, {answers}]

[station]
settle_s = 0.2
understand = false

[rest.endpoints.{hook}]
job = "ask"
payload = {{ prompt = "Greet {{body.name}}." }}
secret = {secret}

[[schedule]]
id = "demo-clock"
every = "2s"
job = {{ job_type = "shell.cmd", payload = {{ argv = ["date", "-u"] }} }}
"""


class TemporaryBridge:
    """A running bridge in a temporary workspace.

    Attributes:
        loaded: Its settings.
        bridge: Connection to it.
        environ: Environment of its processes.
        token: Token of its REST API.
        hook_secret: Secret of its webhook.
    """

    def __init__(
        self, loaded: LoadedSettings, environ: Mapping[str, str], *, token: str, hook_secret: str
    ) -> None:
        self.loaded = loaded
        self.bridge = Bridge(loaded)
        self.environ = dict(environ)
        self.token = token
        self.hook_secret = hook_secret

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 30.0) -> tuple[int, str]:
        """Run a command of ``3ox`` on this bridge.

        Args:
            *arguments: Arguments of ``3ox``.
            stdin: Its input.
            timeout_s: Limit for its run time.

        Returns:
            Its exit code and its stdout, or its stderr if stdout is empty.

        Raises:
            WaitTimeout: It did not finish in time and was killed.
        """
        try:
            done = subprocess.run(
                own_argv(*arguments),
                env=self.environ,
                cwd=self.loaded.workspace.workdesk,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WaitTimeout(
                f"'3ox {' '.join(arguments)}' did not finish within {timeout_s:g} s."
            ) from error
        return done.returncode, done.stdout if done.stdout else done.stderr


@contextlib.contextmanager
def temporary_bridge(redis_url: str, bot: tuple[str, str] | None) -> Iterator[TemporaryBridge]:
    """Run a bridge within a block; afterwards its processes, files and keys are removed.

    Args:
        redis_url: The store, which is used with a key prefix of its own; the embedded store if empty.
        bot: Address of the Bot API and token of the bot; None for no Telegram.

    Raises:
        StartFailed: The bridge did not start, or one of its processes cannot be stopped.
    """
    home = Path(tempfile.mkdtemp(prefix="3ox-demo-"))
    prefix = f"demo-{secrets.token_hex(4)}:"
    token, hook_secret = secrets.token_urlsafe(24), secrets.token_hex(16)
    _create_workspace(home, hook_secret)
    environ = _environment(home, prefix, token, redis_url, bot)
    try:
        loaded = load_settings(environ=environ)
        loaded.workspace.create()
        running = TemporaryBridge(loaded, environ, token=token, hook_secret=hook_secret)
        try:
            with _processes(running):
                yield running
        finally:
            if redis_url:
                _remove_keys(running, prefix)
    finally:
        _remove_workspace(Workspace(home))


def _create_workspace(home: Path, hook_secret: str) -> None:
    desk = home / "WORKDESK"
    desk.mkdir()
    answers = home / "answers.py"
    answers.write_text(_ANSWERS)
    python, program, secret = (
        msgspec.json.encode(value).decode() for value in (sys.executable, str(answers), hook_secret)
    )
    text = _SETTINGS.format(python=python, answers=program, hook=HOOK, secret=secret)
    (home / "3ox.toml").write_text(text)


def _environment(
    home: Path, prefix: str, token: str, redis_url: str, bot: tuple[str, str] | None
) -> dict[str, str]:
    """Return our environment with the settings of the demo instead of the user's."""
    environ = {
        name: value
        for name, value in for_child(without=ENV_FOREIGN).items()
        if not name.startswith("BRIDGE_")
    }
    environ |= {
        "BRIDGE_HOME": str(home),
        "BRIDGE_API_HOST": "127.0.0.1",
        "BRIDGE_API_PORT": "0",
        "BRIDGE_API_TOKEN": token,
        "BRIDGE_KEY_PREFIX": prefix,
    }
    if redis_url:
        environ["BRIDGE_REDIS_URL"] = redis_url
    if bot is not None:
        environ["BRIDGE_TELEGRAM_API"], environ["BRIDGE_TELEGRAM_TOKEN"] = bot
        environ["BRIDGE_TELEGRAM_ALLOW"] = str(CHAT_ID)
    return environ


@contextlib.contextmanager
def _processes(running: TemporaryBridge) -> Iterator[None]:
    """Run ``3ox up`` within a block; it ends with this process, even if that is killed."""
    argv = own_argv("up")
    process = subprocess.Popen(
        launch_argv(argv, signal.SIGTERM),
        env=running.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C must reach only this process, which then stops the bridge in order.
        start_new_session=True,
    )
    try:
        _await_ready(process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        home = str(running.loaded.workspace.home)
        if not stop_processes(
            lambda: [pid for pid in find_marked("BRIDGE_HOME", home) if pid != os.getpid()], grace_s=2.0
        ):
            raise StartFailed(
                "A process of the demo cannot be stopped.",
                remedy=f"Find it by BRIDGE_HOME={home} in ps -e e.",
            )


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    """Read the output of ``3ox up`` until it reports that the bridge is up.

    Raises:
        StartFailed: It ended, or did not report that in time.
    """
    if process.stdout is None:
        raise StartFailed("The output of the demo's bridge cannot be read.")
    deadline_s = time.monotonic() + START_TIMEOUT_S
    output = b""
    while _READY not in output:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            raise StartFailed(
                f"The demo's bridge was not ready within {START_TIMEOUT_S:g} s.",
                remedy="'3ox doctor' checks the set-up.",
            )
        chunk = os.read(process.stdout.fileno(), 65_536)
        if not chunk:
            text = " ".join(output.decode(errors="replace").split())[-500:]
            raise StartFailed(
                f"The demo's bridge did not start: {text}", remedy="'3ox doctor' checks the set-up."
            )
        output += chunk


def _remove_workspace(workspace: Workspace) -> None:
    """Remove the workspace, and the directory of the store's socket, which is elsewhere for long paths."""
    shutil.rmtree(workspace.home)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(workspace.store_socket.parent)


def _remove_keys(running: TemporaryBridge, prefix: str) -> None:
    """Remove the demo's keys from the user's store."""
    store, cursor = running.bridge.store, b"0"
    while True:
        cursor, names = store.call("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _KEYS_PER_SCAN)
        if names:
            store.call("DEL", *names)
        if cursor == b"0":
            return
