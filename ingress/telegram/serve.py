"""Opens the Telegram door in a daemon."""

from __future__ import annotations

from ingress.core.daemon import Daemon


def serve(daemon: Daemon) -> None:
    """Serve until the daemon is told to stop.

    The daemon is ready before python-telegram-bot is imported, which takes half a second: the spool is handed
    over already, and Telegram keeps what is written meanwhile.
    """
    daemon.ready()
    from ingress.telegram.bot import serve_telegram

    serve_telegram(daemon)
