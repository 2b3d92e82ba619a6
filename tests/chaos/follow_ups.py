"""Goes through every pipeline, group and callback, and finds what was sent twice or not at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from middleware.job.keys import Keys
from ops.store.client import Store
from tests.chaos import user_jobs
from tests.chaos.compositions import Composition
from tests.chaos.verdict import Accepted, Line

_BATCH = 500
Node = tuple[str, int]


class Part(Struct):
    """A job that belongs to a composition.

    Attributes:
        chain: Name of the composition, or of a pipeline in a group.
        node: Actor and place.
        failures: Number of attempts that failed; crashed ones do not count.
    """

    job_id: str
    chain: str
    node: Node
    status: str
    failures: int


class FollowUps(Struct):
    """What was found; lists hold chain and place.

    Attributes:
        compositions: Sent ones, by kind.
        jobs: Jobs that belong to them, by actor.
        twice: More than one job for one place.
        missing: No job for a place, though what it follows has completed, or the caller was told it was sent.
        early: A job for a place before what it follows had completed.
        unended: Jobs that did not end as they had to.
    """

    compositions: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    twice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not be, by name; only what is."""
        found = {
            "follow-ups sent twice": self.twice,
            "follow-ups missing": self.missing,
            "follow-ups sent early": self.early,
            "user jobs with a wrong end": self.unended,
        }
        return {name: places for name, places in found.items() if places}


def read_parts(store: Store, keys: Keys) -> list[Part]:
    """Read every job of the user's actors from the store."""
    parts = []
    for actor in user_jobs.ACTORS:
        ids = [found.decode() for found in store.call("ZRANGE", keys.index_type(actor.actor_name), 0, -1)]
        for at in range(0, len(ids), _BATCH):
            batch = ids[at : at + _BATCH]
            records: list[Any] = store.pipeline([("HMGET", keys.job(one), "spec", "status") for one in batch])
            chains: list[Any] = store.pipeline([("LRANGE", keys.receipts(one), 0, -1) for one in batch])
            parts += [
                _part(
                    job_id, actor.actor_name, record, [msgspec.json.decode(line, type=Line) for line in chain]
                )
                for job_id, record, chain in zip(batch, records, chains, strict=True)
            ]
    return parts


def _part(job_id: str, actor: str, record: Sequence[bytes], chain: Sequence[Line]) -> Part:
    payload = msgspec.json.decode(record[0])["payload"]
    called_with = payload["message"]["kwargs"] if "message" in payload else payload
    failed = [line for line in chain if line.status in {"retrying", "failed"}]
    return Part(
        job_id=job_id,
        chain=called_with["chain"],
        node=(actor, payload.get("at", 0)),
        status=record[1].decode(),
        failures=sum(not line.reason.startswith("recovered from") for line in failed),
    )


def accepted_parts(parts: Iterable[Part]) -> list[Accepted]:
    """Return the jobs as those are that the daemon has accepted, to be judged like them."""
    return [Accepted(part.job_id, part.node[0], "", at) for at, part in enumerate(parts)]


def judge_follow_ups(compositions: Iterable[Composition], parts: Iterable[Part]) -> FollowUps:
    """Compare what there is with what there has to be."""
    by_chain: dict[str, dict[Node, list[Part]]] = defaultdict(lambda: defaultdict(list))
    judge = _Judge()
    for part in parts:
        by_chain[part.chain][part.node].append(part)
        judge.found.jobs[part.node[0]] += 1
        if part.status != ("failed" if part.node[0] == "doomed" else "completed"):
            judge.found.unended.append(f"{part.job_id} {part.node} of {part.chain} is {part.status}")
    for composition in compositions:
        judge.judge(composition, by_chain)
    return judge.found


class _Judge:
    def __init__(self) -> None:
        self.found = FollowUps()

    def judge(self, composition: Composition, by_chain: Mapping[str, Mapping[Node, list[Part]]]) -> None:
        """Judge one composition."""
        chain, sent = composition.chain, composition.sent
        places = by_chain[chain]
        self.found.compositions[composition.kind] += sent
        if composition.kind == "pipeline":
            self._pipeline(chain, places, composition.pipelines, sent=sent)
        elif composition.kind == "group":
            self._group(composition, by_chain)
        else:
            node = (composition.kind, 0)
            jobs = self._expect(chain, places, node, 1 if sent else None)
            self._expect(chain, places, ("succeeded", 0), sum(job.status == "completed" for job in jobs))
            self._expect(chain, places, ("noted", 0), sum(job.failures for job in jobs))

    def _pipeline(
        self, chain: str, places: Mapping[Node, list[Part]], steps: int, *, sent: bool
    ) -> list[Part]:
        """Judge a pipeline; returns the jobs of its last step."""
        jobs = self._expect(chain, places, ("step", 0), 1 if sent else None)
        for at in range(1, steps):
            done = any(job.status == "completed" for job in jobs)
            jobs = self._expect(chain, places, ("step", at), int(done))
        return jobs

    def _group(self, composition: Composition, by_chain: Mapping[str, Mapping[Node, list[Part]]]) -> None:
        chain, wanted = composition.chain, 1 if composition.sent else None
        places = by_chain[chain]
        jobs = [self._expect(chain, places, ("member", at), wanted) for at in range(composition.members)]
        for at in range(composition.pipelines):
            name = f"{chain}.{at}"
            jobs.append(self._pipeline(name, by_chain[name], 2, sent=composition.sent))
        done = all(any(job.status == "completed" for job in found) for found in jobs)
        for at in range(2):
            self._expect(chain, places, ("gathered", at), int(done))

    def _expect(
        self, chain: str, places: Mapping[Node, list[Part]], node: Node, wanted: int | None
    ) -> list[Part]:
        """Compare the number of jobs of one place with how many there have to be; None: at most one."""
        jobs = places[node]
        place = f"{chain} {node[0]} {node[1]}: {len(jobs)} jobs, {wanted} expected"
        if wanted == 0 and jobs:
            self.found.early.append(place)
        elif len(jobs) > (1 if wanted is None else wanted):
            self.found.twice.append(place)
        elif wanted is not None and len(jobs) < wanted:
            self.found.missing.append(place)
        return jobs
