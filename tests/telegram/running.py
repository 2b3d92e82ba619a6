"""The bot as a real process, with a local Bot API server."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingress.core.daemon import ready_file
from ingress.demo.bot_api import BotApi
from ingress.dispatch import Bridge
from ingress.telegram.pending_reply import PendingReply, decode_reply
from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.support import eventually, threeox

BOT = "7000000001"
CHAT, OTHER_CHAT, GROUP, ADMIN, STRANGER = 42, 43, -100777, 900, 666
OLD_GROUP, CHANNEL = -4711, -100999
SETTINGS = f"""
telegram_allow = [{CHAT}, {OTHER_CHAT}, {GROUP}, {OLD_GROUP}, {CHANNEL}]
telegram_admins = [{ADMIN}]
telegram_edit_interval_s = 0.05
telegram_messages_per_s = 500
telegram_group_messages_per_min = 60000
kill_grace_s = 0.5
progress_interval_s = 0.02

[types."telegram"]
backoff_min_s = 0.02
backoff_max_s = 0.05

[projects.mill]
path = "."
command = ["sh", "-c", "echo ground $BRIDGE_TASK"]

[projects.guarded]
path = "."
command = ["echo", "let in"]

[[policy]]
effect = "approve"
project = "guarded"

[[policy]]
effect = "allow"
source = "telegram"
job_type = "task.custom"
"""


def telegram_environ(environ: Mapping[str, str], api: BotApi) -> dict[str, str]:
    """Write the settings into the workspace; return the environment with the address of the Bot API."""
    (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(SETTINGS)
    return {
        **environ,
        "BRIDGE_TELEGRAM_TOKEN": api.token,
        "BRIDGE_TELEGRAM_API": api.url,
        "BRIDGE_STORE_TIMEOUT_S": "1",
    }


class BotProcess:
    """A ``3ox telegram`` process that can be killed and started again.

    Args:
        environ: Its whole environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self.workspace = Workspace(Path(environ["BRIDGE_HOME"]))
        self.bridge = Bridge(load_settings(environ=environ))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.spawn()
        process, file = self._process, ready_file(self.workspace, "telegram")
        assert process is not None

        def serves() -> bool:
            assert process.poll() is None, "the bot ended at its start"
            return file.exists() and file.read_text() == str(process.pid)

        eventually(serves, 20.0)

    def spawn(self) -> None:
        """Start it without waiting."""
        with (self.workspace.home / "telegram.out").open("ab") as output:
            self._process = subprocess.Popen(
                threeox("telegram"), env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10.0)

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10.0)

    def end(self) -> None:
        """Stop it if it is running."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        self.kill()

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of 3ox.log with this event."""
        try:
            lines = self.workspace.log_file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def pending(self) -> list[PendingReply]:
        """Return the pending replies that the store holds."""
        keys = self.bridge.reader.keys
        return [decode_reply(row) for row in self.bridge.store.call("HVALS", keys.telegram(BOT, "owed"))]


@contextlib.contextmanager
def running_bot(environ: Mapping[str, str]) -> Iterator[BotProcess]:
    """Run a bot within a block."""
    bot = BotProcess(environ)
    try:
        bot.start()
        yield bot
    finally:
        bot.end()
