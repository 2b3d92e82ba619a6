"""Several hosts: one of them is cut off from the others and comes back; see ``scaleout.py``."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from tests.deploy.scaleout import SHORT, THREADS, Figures
from tests.support import ROOT, clean_environ


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel has no namespaces")
def test_a_host_that_is_cut_off_costs_nothing() -> None:
    """Its jobs run elsewhere when its lease has ended, its results are refused, and it takes part again."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.deploy.netns", "--short", "--json"],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    figures = msgspec.json.decode(ran.stdout, type=Figures)
    assert figures.accepted == figures.completed == SHORT.count
    assert figures.lost == figures.committed_twice == figures.unexplained == 0
    assert figures.in_hand > 0
    assert figures.started_twice <= figures.in_hand
    # Also those whose end was being noted at that moment: noted, but the host has no reply.
    assert figures.refused <= figures.in_hand + THREADS
    # No sooner than the lease says, and no later than the next look of the other host's worker; see Recovery.
    assert figures.elsewhere_s[0] > SHORT.lease_s - SHORT.lease_s / 3 - 0.5
    assert figures.elsewhere_s[-1] < SHORT.lease_s * 4 / 3 + 5.0
    # The other worker takes the jobs: the store's wait for the lost one ends within a second.
    assert figures.during_wait_s[-1] < 5.0
    assert figures.on_right > 0
    assert figures.back_s < 30.0
