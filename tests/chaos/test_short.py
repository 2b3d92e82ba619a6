"""The short chaos run: every kind of fault once or more, every job accounted for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos import user_jobs
from tests.chaos.plan import PER_MINUTE, make_plan
from tests.support import ROOT, clean_environ

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="chaos finds what it kills in /proc"
)


@pytest.mark.timeout(180)
def test_nothing_is_lost_and_nothing_is_committed_twice(tmp_path: Path) -> None:
    """Workers, units, the watchdog, the daemon and the store are killed under load, and all jobs end once."""
    figures = tmp_path / "figures.json"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--short", "--seed", "3", "--json", str(figures)],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = msgspec.json.decode(figures.read_bytes())
    done, verdict = found["done"], found["verdict"]
    assert done["worker-kill"] + done["unit-kill"] >= 5
    assert done["store-kill"] == 2
    assert min(done[kind] for kind in ("master-kill", "watchdog-kill", "ingress-kill", "store-pause")) == 1
    assert sum(found["torn"].values()) >= 3
    assert verdict["accepted"] >= 200
    follow_ups = found["follow_ups"]
    doomed = follow_ups["jobs"]["doomed"]
    assert verdict["by_status"] == {"completed": verdict["accepted"] - doomed, "failed": doomed}
    assert min(follow_ups["compositions"].values()) >= 1
    assert follow_ups["jobs"].keys() == {actor.actor_name for actor in user_jobs.ACTORS}
    assert [follow_ups[name] for name in ("twice", "missing", "early", "unended")] == [[]] * 4
    assert verdict["lost"] == verdict["committed_twice"] == verdict["overlaps"] == []
    assert verdict["spooled"] >= 1, "the daemon was never without its store"


def test_a_seed_gives_the_same_plan_again() -> None:
    """What went wrong once can be replayed: faults, times and targets follow from the seed."""
    first = make_plan(seed=5, minutes=10, jobs_per_s=40)
    assert make_plan(seed=5, minutes=10, jobs_per_s=40) == first
    assert make_plan(seed=6, minutes=10, jobs_per_s=40).faults != first.faults
    assert {fault.kind for fault in first.faults} == set(PER_MINUTE)
    kills = [fault.kind for fault in first.faults]
    assert kills.count("worker-kill") >= 100
    assert kills.count("store-kill") >= 10
    assert first.jobs_per_s * first.load_s >= 20_000


def test_a_fault_left_out_moves_no_other() -> None:
    """Leaving kinds out narrows a failure down: the others keep their time and their target."""
    whole = make_plan(seed=5, minutes=1, jobs_per_s=40)
    part = make_plan(seed=5, minutes=1, jobs_per_s=40, without=["store-kill"])
    assert part.faults == [fault for fault in whole.faults if fault.kind != "store-kill"]
