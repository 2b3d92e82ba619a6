"""What every page of the dashboard may use."""

from __future__ import annotations

import threading
from typing import TypeAlias

from litestar.di import NamedDependency

from ingress.core.http.app_state import AppState
from ingress.core.listing import Catalog
from ingress.core.schedules import LiveSchedules
from ingress.dashboard.sessions import Sessions, SignInLimit
from middleware.archive.history import History


class DashboardState:
    """The dashboard of one process.

    Args:
        app_state: Of the API that it is served with.

    Attributes:
        bridge: For what is read; what is done to jobs goes through ``app_state.bridge``.
        sessions: Who has signed in.
        tries: Bounds sign-ins that fail.
    """

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        self.bridge = app_state.read_bridge
        self.sessions = Sessions(app_state.tokens)
        self.tries = SignInLimit()
        self._local = threading.local()
        self._book: LiveSchedules | None = None
        self._book_lock = threading.Lock()

    def catalog(self) -> Catalog:
        """Give store and history as one, for this thread: a connection to the history is bound to its own."""
        path = self.app_state.loaded.workspace.history_db
        inode = path.stat().st_ino if path.exists() else 0
        known: tuple[int, Catalog] | None = getattr(self._local, "catalog", None)
        if known is None or known[0] != inode:
            known = self._local.catalog = (inode, Catalog(self.bridge, History(path)))
        return known[1]

    def schedules(self) -> LiveSchedules:
        """Give the schedules as they stand in the file now.

        Raises:
            SettingsError: One of them cannot be.
        """
        with self._book_lock:
            if self._book is None:
                self._book = LiveSchedules(self.app_state.daemon.live)
            self._book.refresh()
            return self._book


#: What a handler writes to be given the dashboard: ``dashboard: DashboardDependency``.
DashboardDependency: TypeAlias = NamedDependency[DashboardState]
