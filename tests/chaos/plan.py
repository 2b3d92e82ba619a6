"""What a run will do: how much load, which faults and when; all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

from msgspec import Struct

#: Faults for each minute of load. Restarting a worker costs about a second of one core, which bounds them.
PER_MINUTE: dict[str, float] = {
    "worker-kill": 13.0,
    "unit-kill": 2.5,
    "master-kill": 2.0,
    "3ox-worker-kill": 1.0,
    "watchdog-kill": 2.0,
    "ingress-kill": 1.0,
    "worker-pause": 3.0,
    "worker-freeze": 1.0,
    "store-kill": 1.6,
    "store-pause": 1.2,
    "store-freeze": 0.4,
    "cut": 3.0,
    "torn-reply": 6.0,
    "torn-settle": 6.0,
    "torn-request": 4.0,
    "blackout": 1.0,
}
#: The short run: each kind at least once, in a few seconds.
SHORT: dict[str, int] = {
    "worker-kill": 6,
    "unit-kill": 1,
    "master-kill": 1,
    "watchdog-kill": 1,
    "ingress-kill": 1,
    "worker-pause": 1,
    "store-kill": 2,
    "store-pause": 1,
    "cut": 2,
    "torn-reply": 2,
    "torn-settle": 3,
    "torn-request": 2,
    "blackout": 1,
}
#: How long a pause lasts, in seconds. A freeze is longer than the lease (5 s) and the patience with a worker
#: that does not pull (5 s).
PAUSES_S: dict[str, tuple[float, float]] = {
    "worker-pause": (0.3, 3.0),
    "worker-freeze": (7.0, 12.0),
    "store-pause": (0.3, 3.0),
    "store-freeze": (6.0, 9.0),
    "blackout": (0.2, 2.0),
}
SHORT_LOAD_S = 11.0
#: For each job of the daemon so many compositions of the user's jobs.
COMPOSITIONS_SHARE = 0.06
_SHORT_PAUSE_S = (0.4, 0.8)


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that goes wrong.

    Attributes:
        at_s: When, from the beginning of the load.
        kind: Which, see ``PER_MINUTE``.
        pick: From 0 to 1: which of the targets that there are then; where in a message it is torn.
        lasts_s: Of pauses.
    """

    at_s: float
    kind: str
    pick: float
    lasts_s: float = 0.0


class Plan(Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        load_s: For how long jobs come in.
        jobs_per_s: How many.
        compositions_per_s: Pipelines, groups and jobs with callbacks, of three to thirteen jobs each.
        units: Worker units of ``3ox up``, which talk to the store directly.
        proxied: Worker units of their own (``3ox worker``), which reach it through the proxy.
        threads: Jobs that each unit runs at a time.
        drain_s: Bound on the time until every job has ended after the load.
        fsync: Of the store.
        longest_s: How long a job runs at most: in a full run, longer than the store is frozen.
        faults: In the order of their time.
    """

    seed: int
    short: bool
    load_s: float
    jobs_per_s: float
    compositions_per_s: float
    units: int
    proxied: int
    threads: int
    drain_s: float
    fsync: str
    longest_s: float
    faults: list[Fault]


def make_plan(
    *,
    seed: int,
    minutes: float,
    jobs_per_s: float,
    short: bool = False,
    fsync: str = "everysec",
    kill_supervisor: bool = False,
    without: Collection[str] = (),
) -> Plan:
    """Make the plan that belongs to a seed.

    Args:
        seed: The same seed and options give the same plan.
        minutes: Length of the load.
        jobs_per_s: Load.
        short: A run of about 25 s; ``minutes`` then counts for nothing.
        fsync: ``always``, ``everysec`` or ``no``.
        kill_supervisor: Kill ``3ox up`` itself too, once a minute.
        without: Kinds of faults to leave out; the others stay where they are.
    """
    load_s = SHORT_LOAD_S if short else minutes * 60
    counts = dict(SHORT) if short else {kind: max(1, round(n * minutes)) for kind, n in PER_MINUTE.items()}
    if kill_supervisor:
        counts["supervisor-kill"] = max(1, round(load_s / 60))
    faults = _faults(random.Random(seed), counts, load_s, short=short)  # noqa: S311 (to be repeatable)
    return Plan(
        seed=seed,
        short=short,
        load_s=load_s,
        jobs_per_s=jobs_per_s,
        compositions_per_s=jobs_per_s * COMPOSITIONS_SHARE,
        units=2 if short else 4,
        proxied=1 if short else 2,
        threads=4,
        drain_s=40.0 if short else 120.0,
        fsync=fsync,
        longest_s=3.0 if short else 12.0,
        faults=[fault for fault in faults if fault.kind not in without],
    )


def _faults(rng: random.Random, counts: Mapping[str, int], load_s: float, *, short: bool) -> list[Fault]:
    """Spread each kind over the load: one somewhere in each of as many equal parts as there are of it."""
    faults = [
        Fault(
            at_s=round((at + rng.random()) / count * (load_s - 1.0) + 0.5, 2),
            kind=kind,
            pick=rng.random(),
            lasts_s=_lasts_s(rng, kind, short=short),
        )
        for kind, count in counts.items()
        for at in range(count)
    ]
    return sorted(faults, key=lambda fault: fault.at_s)


def _lasts_s(rng: random.Random, kind: str, *, short: bool) -> float:
    if kind not in PAUSES_S:
        return 0.0
    return round(rng.uniform(*(_SHORT_PAUSE_S if short else PAUSES_S[kind])), 2)
