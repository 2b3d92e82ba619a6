"""A pseudo-terminal: keys go in, what is drawn comes out as text."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

#: Asks the terminal for its cursor position; a program that gets no answer complains.
_WHERE = b"\x1b[6n"
_SEQUENCES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78()][0B]?)|\x0f|\x0e")


class Terminal:
    """A program on a pseudo-terminal.

    Args:
        argv: The program.
        environ: Its environment.
        size: Columns and lines.
    """

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], size: tuple[int, int] = (100, 30)
    ) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.process = subprocess.Popen(
            argv,
            env={**environ, "TERM": "xterm-256color"},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            # Its controlling terminal, so that Ctrl-C becomes a signal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(side)
        self._raw = b""
        self._answered = 0
        self.seen = 0

    @property
    def text(self) -> str:
        """All that has been drawn, without control sequences."""
        return _SEQUENCES.sub("", self._raw.decode(errors="replace"))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._main, keys.encode())

    def line(self, text: str) -> None:
        """Type a line and press Enter."""
        self.type(text + "\r")

    def expect(self, wanted: str, timeout_s: float = 15.0) -> str:
        """Wait until a text is drawn after the previous match; return what was drawn before it."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = self.text.find(wanted, self.seen)
            if found >= 0:
                before = self.text[self.seen : found]
                self.seen = found + len(wanted)
                return before
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{wanted!r} was not drawn; the end of what was: {self.text[-1500:]!r}"
            assert self._read(min(left_s, 1.0)), f"it ended without {wanted!r}: {self.text[-1500:]!r}"

    def redraw(self) -> None:
        """Redraw everything (Ctrl-L): of a toolbar only the figures that change are drawn."""
        self.seen = len(self.text)
        self.type("\x0c")

    def see(self, wanted: str, timeout_s: float = 15.0) -> None:
        """Wait until a text is on the screen."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self.redraw()
            with contextlib.suppress(AssertionError):
                self.expect(wanted, 0.5)
                return
            assert time.monotonic() < deadline_s, f"{wanted!r} is not seen: {self.text[-1500:]!r}"

    def look(self) -> None:
        """Read what has been drawn."""
        self._read(0.1)

    def _read(self, timeout_s: float) -> bool:
        """Read what is available; return whether there may be more."""
        if not select.select([self._main], [], [], timeout_s)[0]:
            return True
        try:
            piece = os.read(self._main, 65_536)
        except OSError:  # EIO: the last process has closed the terminal
            return False
        self._raw += piece
        asked = self._raw.count(_WHERE)
        for _ in range(asked - self._answered):
            os.write(self._main, b"\x1b[1;1R")
        self._answered = asked
        return bool(piece)

    @property
    def is_tidy(self) -> bool:
        """Whether the terminal echoes and reads lines, as a program must leave it."""
        local = termios.tcgetattr(self._main)[3]
        return bool(local & termios.ECHO and local & termios.ICANON)

    def has_ended(self, timeout_s: float) -> bool:
        """Return whether the program ends in time; what it draws meanwhile is read."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and self._read(0.1):
            pass
        return self.process.poll() is not None

    def wait(self, timeout_s: float = 15.0) -> int:
        """Wait for the program's end; return its exit code."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and self._read(0.2):
            pass
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """Stop what is still running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10.0)
        os.close(self._main)
