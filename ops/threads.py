"""Threads that have a duty for as long as their process lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

#: Between an unexpected failure of a duty and its next try.
_PAUSE_S = 1.0


def start_duty(
    name: str, run: Callable[..., None], *arguments: Any, ended: Callable[[], bool]
) -> threading.Thread:
    """Start a thread for a duty; an exception that it did not expect is logged, and it begins anew.

    A worker whose heartbeat or control thread ended for good over one odd reply would look well and be deaf.

    Args:
        name: Of the thread.
        run: The duty; it is over when this returns.
        *arguments: For ``run``.
        ended: Whether the process is stopping, so that a duty that failed need not begin anew.
    """

    def keep() -> None:
        while not ended():
            try:
                run(*arguments)
            except Exception:
                import logging  # 4 ms, which '3ox run' does without

                logging.getLogger(__name__).exception("duty.failed: %s", name)
                time.sleep(_PAUSE_S)
            else:
                return

    thread = threading.Thread(target=keep, name=name, daemon=True)
    thread.start()
    return thread
