"""What the handlers of the dashboard share."""

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
    """The state of the dashboard in one API process.

    Args:
        app_state: State of the process.

    Attributes:
        bridge: For reads; actions on jobs use ``app_state.bridge``.
        sessions: Signed-in browsers.
        sign_in_limit: Limits failed sign-ins.
    """

    def __init__(self, app_state: AppState) -> None:
        self.app_state = app_state
        self.bridge = app_state.read_bridge
        self.sessions = Sessions(app_state.tokens)
        self.sign_in_limit = SignInLimit()
        self._local = threading.local()
        self._book: LiveSchedules | None = None
        self._book_lock = threading.Lock()

    def catalog(self) -> Catalog:
        """Return this thread's catalog of store and history; a history connection belongs to one thread."""
        path = self.app_state.loaded.workspace.history_db
        inode = path.stat().st_ino if path.exists() else 0
        known: tuple[int, Catalog] | None = getattr(self._local, "catalog", None)
        if known is None or known[0] != inode:
            known = self._local.catalog = (inode, Catalog(self.bridge, History(path)))
        return known[1]

    def schedules(self) -> LiveSchedules:
        """Return the schedules that 3ox.toml has now.

        Raises:
            SettingsError: A schedule is not valid.
        """
        with self._book_lock:
            if self._book is None:
                self._book = LiveSchedules(self.app_state.daemon.live)
            self._book.refresh()
            return self._book


#: Type of a handler's parameter that receives the state: ``dashboard: DashboardDependency``.
DashboardDependency: TypeAlias = NamedDependency[DashboardState]
