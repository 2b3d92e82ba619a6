"""What ``dramatiq`` runs for us: the product as it is, with the start of a marked job reported."""

from __future__ import annotations

from typing import Any

from actors import broker
from tests.bench.job import report_start

_heartbeat = broker.get_actor("heartbeat")
_body = _heartbeat.fn


def _reported(payload: Any) -> Any:
    report_start(payload.nonce)
    return _body(payload)


_heartbeat.fn = _reported
