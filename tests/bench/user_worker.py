"""What ``dramatiq`` runs for an actor of a user: the bridge's broker, and stock Dramatiq's body."""

from __future__ import annotations

import dramatiq

from actors import broker
from tests.bench.job import stock_body

noop = dramatiq.actor(actor_name="noop", broker=broker)(stock_body)
