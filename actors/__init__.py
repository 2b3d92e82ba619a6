"""What a job does: one module per job type.

``dramatiq actors`` imports this package and finds the broker with the actors of the bridge's own pool: the
built-in ones, those of the modules that ``actors = [...]`` of 3ox.toml names, and those of plug-ins. A module
that imports the broker from here and declares actors is a pool of its own: ``dramatiq my_jobs``.
"""

import cmd_bridge

# Before anything is imported that another package of such a name would lack.
cmd_bridge.require_own("ops", "middleware")

from actors.plugin_modules import load_actor_modules  # noqa: E402
from actors.registry import ACTORS, build_broker  # noqa: E402
from ops.settings.load import load_settings  # noqa: E402

__all__ = ["ACTORS", "broker"]

_loaded = load_settings()
broker = build_broker(_loaded)
# These modules import the broker from here.
load_actor_modules(broker, _loaded)
