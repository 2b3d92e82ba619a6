"""What a job does: one module per job type.

``dramatiq actors`` imports this package and finds the broker with every actor on it; that is all a worker
pool needs.
"""

from actors.registry import ACTORS, build_broker
from ops.settings.load import load_settings

__all__ = ["ACTORS", "broker"]

broker = build_broker(load_settings())
