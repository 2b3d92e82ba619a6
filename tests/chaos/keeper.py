"""Keeps one command running, as systemd or another host's supervisor would."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PAUSE_S = 0.2


class Keeper:
    """Starts a command at once, and again whenever it ends.

    Args:
        name: Of the file that takes its output.
        argv: Returns the command for each start.
        environ: Its whole environment.
        folder: Where that file goes.
        until_success: Not again once it has ended with status 0.

    Attributes:
        ends: The exit statuses so far.
    """

    def __init__(
        self,
        name: str,
        argv: Callable[[], Sequence[str]],
        environ: Mapping[str, str],
        folder: Path,
        *,
        until_success: bool = False,
    ) -> None:
        self.name = name
        self._argv = argv
        self._environ = dict(environ)
        self._output = folder / f"{name}.out"
        self._until_success = until_success
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.ends: list[int] = []
        self._thread = threading.Thread(target=self._run, name=f"keep-{name}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def done(self) -> bool:
        """Whether it will not be started again."""
        return not self._thread.is_alive()

    def stop(self, timeout_s: float) -> None:
        """Send SIGTERM and wait for the end; SIGKILL after the time."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(timeout_s)

    def give_up(self) -> None:
        """Start nothing more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._output.open("ab") as output, self._lock:
                if self._stopping.is_set():
                    return
                self._process = subprocess.Popen(
                    list(self._argv()),
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            status = self._process.wait()
            self.ends.append(status)
            if self._until_success and status == 0:
                return
            self._stopping.wait(_PAUSE_S)
