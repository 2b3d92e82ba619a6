"""The bridge that ``3ox demo`` shows: a whole one, in a temporary workspace, gone when the tour ends."""

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

from ingress.core.bridge import Bridge
from ops.errors import StartFailed, WaitTimeout
from ops.processes import find_marked, stop_processes
from ops.settings.load import ENV_FOREIGN, LoadedSettings, load_settings
from ops.supervision.launch import launch_argv
from ops.workspace import Workspace

#: The one chat that the bot hears, and what signs the webhook.
CHAT_ID = 4242
HOOK = "greeting"
START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 30.0
_KEYS_AT_A_TIME = 500
_READY = b"The bridge is up."

_ANSWERS = """\
import sys

question = sys.stdin.read().strip().splitlines()[-1]
print(f"I am a small program and answer everything alike. You asked: {question}")
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


class Stage:
    """A bridge that runs.

    Attributes:
        loaded: Its settings.
        bridge: To look at it.
        environ: Environment of every process that belongs to it.
        token: Of its REST API.
        hook_secret: Signs its webhook.
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
        """Run a command of ``3ox`` here; gives its exit code and what it said, on stdout if it did.

        Raises:
            WaitTimeout: It has not ended in time, and was killed.
        """
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ingress.cli.main", *arguments],
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
            raise WaitTimeout(f"'3ox {' '.join(arguments)}' has not ended in {timeout_s:g} s.") from error
        return done.returncode, done.stdout if done.stdout else done.stderr


@contextlib.contextmanager
def open_stage(redis_url: str, bot: tuple[str, str] | None) -> Iterator[Stage]:
    """Run a bridge for the time of a block; afterwards nothing of it runs, and nothing of it is kept.

    Args:
        redis_url: The store to use, under a key prefix of the demo's own; the embedded one if it is empty.
        bot: Address and token of the Bot API; None for no Telegram.

    Raises:
        StartFailed: It did not come up, or something of it cannot be ended.
    """
    home = Path(tempfile.mkdtemp(prefix="3ox-demo-"))
    prefix = f"demo-{secrets.token_hex(4)}:"
    token, hook_secret = secrets.token_urlsafe(24), secrets.token_hex(16)
    _lay_out(home, hook_secret)
    environ = _environment(home, prefix, token, redis_url, bot)
    try:
        loaded = load_settings(environ=environ)
        loaded.workspace.create()
        stage = Stage(loaded, environ, token=token, hook_secret=hook_secret)
        try:
            with _running(stage):
                yield stage
        finally:
            if redis_url:
                _remove_keys(stage, prefix)
    finally:
        _remove_workspace(Workspace(home))


def _lay_out(home: Path, hook_secret: str) -> None:
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
    """Give our environment with the demo's settings in the place of the user's."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BRIDGE_") and name not in ENV_FOREIGN
    }
    root = str(Path(__file__).resolve().parents[2])
    known = environ.get("PYTHONPATH", "")
    environ |= {
        "BRIDGE_HOME": str(home),
        "BRIDGE_API_HOST": "127.0.0.1",
        "BRIDGE_API_PORT": "0",
        "BRIDGE_API_TOKEN": token,
        "BRIDGE_KEY_PREFIX": prefix,
        "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root,
    }
    if redis_url:
        environ["BRIDGE_REDIS_URL"] = redis_url
    if bot is not None:
        environ["BRIDGE_TELEGRAM_API"], environ["BRIDGE_TELEGRAM_TOKEN"] = bot
        environ["BRIDGE_TELEGRAM_ALLOW"] = str(CHAT_ID)
    return environ


@contextlib.contextmanager
def _running(stage: Stage) -> Iterator[None]:
    """Run ``3ox up``; it ends with us, whatever becomes of us."""
    argv = [sys.executable, "-m", "ingress.cli.main", "up"]
    process = subprocess.Popen(
        launch_argv(argv, signal.SIGTERM),
        env=stage.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C is ours to hear: the bridge is stopped in order afterwards.
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
        home = str(stage.loaded.workspace.home)
        if not stop_processes(
            lambda: [pid for pid in find_marked("BRIDGE_HOME", home) if pid != os.getpid()], grace_s=2.0
        ):
            raise StartFailed(
                "a process of the demo cannot be ended.", remedy=f"Look for BRIDGE_HOME={home} with ps -e e."
            )


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    """Read what ``3ox up`` says until it says that it is ready.

    Raises:
        StartFailed: It said something else and ended, or nothing in time.
    """
    if process.stdout is None:
        raise StartFailed("the bridge has no output to read.")
    deadline_s = time.monotonic() + START_TIMEOUT_S
    said = b""
    while _READY not in said:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            raise StartFailed(
                f"the demo's bridge was not ready within {START_TIMEOUT_S:g} s.",
                remedy="'3ox doctor' checks the set-up.",
            )
        piece = os.read(process.stdout.fileno(), 65_536)
        if not piece:
            text = " ".join(said.decode(errors="replace").split())[-500:]
            raise StartFailed(
                f"the demo's bridge did not come up: {text}", remedy="'3ox doctor' checks the set-up."
            )
        said += piece


def _remove_workspace(workspace: Workspace) -> None:
    """Remove all of it, the socket's directory too, which lies elsewhere if the path is a long one."""
    shutil.rmtree(workspace.home)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(workspace.store_socket.parent)


def _remove_keys(stage: Stage, prefix: str) -> None:
    """Remove what the demo has left in a store that is not its own."""
    store, cursor = stage.bridge.store, b"0"
    while True:
        cursor, names = store.call("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _KEYS_AT_A_TIME)
        if names:
            store.call("DEL", *names)
        if cursor == b"0":
            return
