"""The store for whoever only asks: an answer within a second, or word that there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ops.errors import StoreSilent, StoreUnreachable
from ops.store.client import Store
from ops.store.resp import Argument, Reply

#: Bound on one answer. A person waits for a page, and a program may ask again.
READ_S = 1.0
#: After a question in vain nobody asks for so long: each would hold one of the few threads all the while.
PAUSE_S = 0.5


class BriefStore(Store):
    """A store that is given up soon; see ``Store`` for its arguments."""

    def __init__(self, url: str, *, timeout_s: float = READ_S) -> None:
        super().__init__(url, timeout_s=timeout_s)
        self._ask_again_s = 0.0

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run several commands in one round trip; see ``Store.pipeline``.

        Raises:
            StoreUnreachable: No answer in time, or none a moment ago.
        """
        began_s = time.monotonic()
        if began_s < self._ask_again_s:
            raise StoreSilent(
                f"the store at {self.url} did not answer a moment ago.",
                remedy="Check whether it is paused or overloaded.",
            )
        try:
            return super().pipeline(commands)
        except StoreUnreachable:
            now_s = time.monotonic()
            if now_s - began_s > self.timeout_s / 2:
                self._ask_again_s = now_s + PAUSE_S
            raise
