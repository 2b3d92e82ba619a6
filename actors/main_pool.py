"""The broker of this process, with the actors of the bridge's own pool: what ``actors.broker`` is."""

from __future__ import annotations

from actors.plugin_modules import load_actor_modules
from actors.registry import build_broker
from ops.settings.load import load_settings

_loaded = load_settings()
broker = build_broker(_loaded)
# These modules import the broker from ``actors``, while this module is being imported.
load_actor_modules(broker, _loaded)
