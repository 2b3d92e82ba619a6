"""The actors: one module per job type.

``dramatiq actors`` imports this package and finds the broker with every actor registered on it.
"""

from actors.registry import ACTORS, build_broker
from ops.settings.load import load_settings

__all__ = ["ACTORS", "broker"]

broker = build_broker(load_settings())
