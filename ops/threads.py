"""Background threads that run for the whole life of their process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

#: Pause after an unexpected exception, before the duty is restarted.
_PAUSE_S = 1.0


def start_duty(
    name: str, run: Callable[..., None], *arguments: Any, ended: Callable[[], bool]
) -> threading.Thread:
    """Start a daemon thread for a background duty; after an unexpected exception it is logged and restarted.

    Without the restart, a worker whose heartbeat or control thread died of one odd reply would still appear
    healthy but no longer react.

    Args:
        name: Name of the thread.
        run: The duty; it is finished when this returns.
        *arguments: Arguments of ``run``.
        ended: Returns whether the process is stopping; a failed duty is not restarted then.
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
