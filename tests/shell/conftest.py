"""The bridges of the CLI tests (with a worker, without one, without a store), and terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import bridge, quiet, storeless
from tests.cli.support import Cli
from tests.middleware.conftest import driver
from tests.shell.terminal import Terminal
from tests.support import threeox

__all__ = ["bridge", "driver", "quiet", "storeless"]

#: Added to the answering program: a question that runs until its worker stops it.
SLOW = """
if prompt.endswith("think hard"):
    import time
    print("Well", flush=True)
    time.sleep(60)
"""

Open = Callable[..., Terminal]


@pytest.fixture(scope="session")
def slow(bridge: Cli) -> Cli:
    """The bridge with a worker; ``think hard`` is a question without an answer within a minute."""
    program = Path(bridge.environ["BRIDGE_HOME"]) / "WORKDESK" / "answers.py"
    first, _, rest = program.read_text().partition('if prompt == "fail"')
    program.write_text(f'{first}{SLOW}if prompt == "fail"{rest}')
    return bridge


@pytest.fixture
def open_shell() -> Iterator[Open]:
    """Open shells on terminals; they are stopped after the test."""
    opened: list[Terminal] = []

    def start(environ: Mapping[str, str], *options: str) -> Terminal:
        terminal = Terminal(threeox("shell", *options), environ)
        opened.append(terminal)
        terminal.expect("3ox>")
        return terminal

    yield start
    for terminal in opened:
        terminal.close()
