"""What a job does: one module per job type.

``dramatiq actors`` imports this package and finds the broker with the actors of the bridge's own pool: the
built-in ones, those of the modules that ``actors = [...]`` of 3ox.toml names, and those of plug-ins. A module
that imports the broker from here and declares actors is a pool of its own: ``dramatiq my_jobs``.

Programs that only need the declarations in ``job_types`` import this package too, so that the broker is made
when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import cmd_bridge

# Before anything is imported that another package of such a name would lack.
cmd_bridge.require_own("ops", "middleware")

if TYPE_CHECKING:
    from actors.main_pool import broker

__all__ = ["broker"]


def __getattr__(name: str) -> Any:
    """Return the broker; made at the first access.

    Raises:
        AttributeError: This module has no such attribute.
    """
    if name != "broker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actors.main_pool import broker as found

    return found


# A worker of Dramatiq finds it as the global one.
if "dramatiq.cli" in sys.modules:
    import actors.main_pool  # noqa: F401
