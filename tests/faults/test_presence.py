"""Killed daemons: listed as missing until another one takes their place, then soon forgotten."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from ingress.core.daemon_heartbeat import DaemonHeartbeat
from ingress.core.status_report import overview
from ingress.dispatch import Bridge
from ops.settings.load import LoadedSettings
from tests.support import eventually

#: A process that says it is a daemon of the name it is given, until it is killed.
BEATING = """
import sys, time
from ingress.dispatch import Bridge
from ingress.core.daemon_heartbeat import DaemonHeartbeat
from ops.settings.load import load_settings
bridge = Bridge(load_settings())
DaemonHeartbeat(bridge.store, bridge.reader.keys, sys.argv[1], stall_s=600).start()
time.sleep(600)
"""


@pytest.fixture
def bridge(loaded: LoadedSettings) -> Bridge:
    """A bridge of the test's own, without daemons."""
    return Bridge(loaded)


@pytest.fixture
def clock(bridge: Bridge) -> Iterator[DaemonHeartbeat]:
    """A clock that lives in this process."""
    living = DaemonHeartbeat(bridge.store, bridge.reader.keys, "clock", stall_s=600)
    living.start()
    yield living
    living.stop()


def listed(bridge: Bridge) -> list[tuple[str, bool]]:
    """Return name and health of the daemons as ``3ox status`` does."""
    return [(daemon["name"], daemon["healthy"]) for daemon in overview(bridge)["daemons"]]


def test_a_killed_daemon_is_missing_until_another_takes_its_place(
    bridge: Bridge, clock: DaemonHeartbeat, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two clocks and one station, one each is killed: that clock is soon gone, the station is missing."""
    monkeypatch.setattr("ingress.core.daemon_heartbeat.REPLACED_S", 0.5)
    killed = [
        subprocess.Popen([sys.executable, "-c", BEATING, name], env=environ) for name in ("clock", "station")
    ]
    try:
        both = [("clock", True), ("clock", True), ("station", True)]
        eventually(lambda: listed(bridge) == both, 20.0)
    finally:
        for process in killed:
            process.kill()
            process.wait(10.0)
    eventually(lambda: ("station", False) in listed(bridge), 10.0)
    eventually(lambda: sorted(listed(bridge)) == [("clock", True), ("station", False)], 5.0)
    keys = bridge.reader.keys
    members = [item.decode() for item in bridge.store.call("ZRANGE", keys.daemons, 0, -1)]
    assert clock.member in members
    assert len(members) == 2
    assert bridge.store.call("EXISTS", keys.daemon(f"clock@{clock.host}:{killed[0].pid}")) == 0
