"""Kill a process just before its N-th file system operation, for every N."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Each is raised before the operation (https://docs.python.org/3/library/audit_events.html).
STEPS = frozenset({"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "open"})


def dies_at(number: int, root: Path, act: Callable[[], Any]) -> bool:
    """Run a function in a forked process that gets SIGKILL just before its N-th operation below a folder.

    Args:
        number: Which step; 1 is the first.
        root: Steps elsewhere do not count, nor does reading.
        act: What to run.

    Returns:
        Whether it died there; False if it came to its end before.
    """
    child = os.fork()
    if child == 0:
        _run(number, os.fspath(root), act)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the act failed; see its traceback above"
    return False


def _run(number: int, root: str, act: Callable[[], Any]) -> None:
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in STEPS or not any(str(part).startswith(root) for part in arguments[:2]):
            return
        if event == "open" and not int(arguments[2]) & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        act()
    except BaseException:  # noqa: BLE001 (it has to be seen, and nothing of the test may go on in here)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
