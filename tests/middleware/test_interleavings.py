"""Random interleavings of everything that happens to jobs, with the invariants looked at after each step."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from middleware.broker.transitions import Bounds
from middleware.job.states import FINAL, State
from tests.middleware.driver import Delivery, Driver
from tests.middleware.model import MAX_CRASHES, WORKERS, Model

LIMITS = ("", "gpu=1/2", "gpu=2/2", "key=1/1", "key=1/1", "gpu=1/2,key=1/1", "key=1/1,gpu=2/2")
OUTCOMES = ("completed", "completed", "failed", "cancelled", "retrying", "queued")
#: Rules draw numbers and choose by them: what is drawn must not depend on what the clock made of the jobs.
PICK = st.integers(0, 20)

_run_number = itertools.count(1)


class Interleavings(Model, RuleBasedStateMachine):
    """Several doors, three workers and an operator, all at once; the model is what they were told.

    Class attributes:
        url: Of a real store.
    """

    url = ""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        bounds = Bounds(max_crashes=MAX_CRASHES, crash_pause_ms=2)
        driver = Driver(self.url, f"t-mix-{next(_run_number)}:", bounds)
        Model.__init__(self, driver)
        self.tokens = itertools.count(1)

    def teardown(self) -> None:
        """However wild it was, every job can be brought to an end, and then nothing is left."""
        try:
            self.drain()
            self.check_nothing_left()
        finally:
            self.driver.close()

    # --- rules -------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Start with a job, so that the other rules have something to work on."""
        self.enqueue_one(5, "", [], 0, "")

    @rule(
        priority=st.sampled_from([1, 5, 5, 10]),
        limits=st.sampled_from(LIMITS),
        behind=st.lists(PICK, max_size=2),
        delay_ms=st.sampled_from([0, 0, 0, 1, 3]),
        key=st.sampled_from(["", "", "", "k1", "k2"]),
    )
    def enqueue(self, priority: int, limits: str, behind: list[int], delay_ms: int, key: str) -> None:
        """Take a job in."""
        depends_on = {self.known[pick % len(self.known)]: None for pick in behind if self.known}
        self.enqueue_one(priority, limits, list(depends_on), delay_ms, key)

    @rule(limits=st.sampled_from(LIMITS[1:]), count=st.integers(2, 4), worker=st.sampled_from(WORKERS))
    def crowd(self, limits: str, count: int, worker: str) -> None:
        """Several jobs want the same resources, and a worker comes for them."""
        for _ in range(count):
            self.enqueue_one(5, limits, [], 0, "")
        self.fetch_for(worker)

    def enqueue_one(self, priority: int, limits: str, depends_on: list[str], delay_ms: int, key: str) -> None:
        """Take a job in, twice, and check the answers."""
        fields = {"idempotency_key": key} if key else {}
        request = self.driver.request(
            priority=priority, limits=limits, depends_on=depends_on, delay_ms=delay_ms, **fields
        )
        dead = [d for d in depends_on if self.look(d).status in {"failed", "cancelled"}]
        reply = self.driver.offer(request)[0]
        if key and self.by_key.get(key) in self.known:
            assert (reply.outcome, reply.job_id) == ("duplicate", self.by_key[key])
            return
        if dead:
            assert (reply.outcome, reply.job_id) == ("dependency", dead[0])
            return
        assert reply.outcome == "new"
        job_id = request.job_id
        self.known.append(job_id)
        self.depends[job_id] = depends_on
        self.unmet[job_id] = self.not_ended(depends_on)
        self.results[job_id] = None
        if key:
            self.by_key[key] = job_id
        again = self.driver.offer(request)[0]
        assert (again.outcome, again.job_id) == ("duplicate", job_id)

    @rule(
        worker=st.sampled_from(WORKERS),
        room=st.integers(1, 3),
        lost=st.booleans(),
        lease_ms=st.sampled_from([60_000, 60_000, -1]),
    )
    def fetch(self, worker: str, room: int, lost: bool, lease_ms: int) -> None:
        """Fetch jobs for a worker; if the reply is lost, fetch again and get the same ones."""
        self.fetch_for(worker, room=room, lost=lost, lease_ms=lease_ms)

    def fetch_for(
        self, worker: str, *, room: int = 3, lost: bool = False, lease_ms: int = 60_000
    ) -> list[Delivery]:
        """Fetch and note who holds what."""
        token = f"d{next(self.tokens)}"
        got = self.driver.fetch(worker, room=room, token=token, lease_ms=lease_ms)
        assert len(got) <= room
        if lost and got:
            again = self.driver.fetch(worker, room=room, token=token, lease_ms=lease_ms)
            assert sorted(d.job_id for d in again) == sorted(d.job_id for d in got)
        for delivery in got:
            assert delivery.job_id not in self.holder, "given to two workers at once"
            self.holder[delivery.job_id] = delivery
            self.deliveries.append(delivery)
        return got

    @rule(pick=PICK, outcome=st.sampled_from(OUTCOMES), delay_ms=st.sampled_from([0, 1, 3]))
    def settle(self, pick: int, outcome: str, delay_ms: int) -> None:
        """An attempt ends."""
        held = list(self.holder.values())
        if held:
            self.settle_one(held[pick % len(held)], outcome, delay_ms)

    @rule(pick=PICK, outcome=st.sampled_from(OUTCOMES))
    def settle_anything(self, pick: int, outcome: str) -> None:
        """A worker says how an attempt ended, be it in time, for the second time or too late."""
        if self.deliveries:
            self.settle_one(self.deliveries[-1 - pick % len(self.deliveries)], outcome, 1)

    def settle_one(self, delivery: Delivery, outcome: str, delay_ms: int) -> None:
        """Settle and check that exactly the holder's word counts, and counts once."""
        holds = self.holder.get(delivery.job_id) == delivery
        result = b'"%s %s"' % (delivery.worker.encode(), delivery.token.encode())
        with_result = outcome in {"completed", "failed"}
        answer, status = self.driver.settle(
            delivery, outcome, delay_ms=delay_ms, result=result if with_result else b""
        )
        if not holds:
            assert answer in {"superseded", "already"}
            return
        assert answer == "settled"
        assert status == outcome or (status == "cancelled" and outcome in {"retrying", "queued"})
        del self.holder[delivery.job_id]
        name = (delivery.job_id, delivery.worker, delivery.token)
        assert name not in self.settled, "one delivery was settled twice"
        self.settled.add(name)
        if with_result:
            self.results[delivery.job_id] = result

    @rule(worker=st.sampled_from(["", *WORKERS]), lucky=st.booleans())
    def recover(self, worker: str, lucky: bool) -> None:
        """Take back the jobs of a worker that is dead, or of all whose lease has ended."""
        held = [job_id for job_id, delivery in self.holder.items() if delivery.worker == worker]
        spared = held[:1] if lucky else []
        if not worker:
            self.driver.look_now()  # or it would only prolong the leases
        for lost, job_id, status in self.driver.scripts.recover(worker, not_started=spared):
            assert self.holder.pop(job_id).worker == lost
            assert status in {"queued", "retrying", "failed", "cancelled"}
        assert not worker or not self.driver.held_by(worker)

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """Cancel a job."""
        if self.known:
            self.cancel_one(self.known[-1 - pick % len(self.known)])

    @rule(pick=PICK)
    def cancel_what_is_ready(self, pick: int) -> None:
        """Cancel a job just before it starts."""
        ready = self.store.call("ZRANGE", self.keys.state(State.QUEUED), 0, -1)
        if ready:
            self.cancel_one(ready[pick % len(ready)].decode())

    def cancel_one(self, job_id: str) -> None:
        """Cancel and check the answer."""
        before = self.look(job_id).status
        wanted = "finished" if before in FINAL else "cancelling" if before == "processing" else "cancelled"
        assert self.driver.scripts.cancel(job_id, "cancelled by bob")[0] == wanted

    @rule(pick=PICK)
    def requeue(self, pick: int) -> None:
        """Retry a job by hand."""
        if not self.known:
            return
        job_id = self.known[-1 - pick % len(self.known)]
        wanted = "queued" if self.look(job_id).status in {"failed", "cancelled"} else "refused"
        assert self.driver.scripts.requeue(job_id, "retried by bob")[0] == wanted
        if wanted == "queued":
            self.results[job_id] = None
            self.unmet[job_id] = self.not_ended(self.depends[job_id])

    @rule()
    def promote(self) -> None:
        """A timer rings."""
        self.driver.scripts.promote()

    @rule(step_ms=st.sampled_from([1, 2, 4]))
    def pass_time(self, step_ms: int) -> None:
        """The store's clock goes on."""
        self.driver.pass_ms(step_ms)

    @rule()
    def hear_the_bell(self) -> None:
        """A consumer is woken, and fetches."""
        if self.store.call("LPOP", self.keys.bell()) is not None:
            self.fetch_for("w1")

    @rule(state=st.sampled_from(["completed", "failed", "cancelled"]))
    def purge(self, state: str) -> None:
        """The oldest ended job is deleted."""
        first = self.store.call("ZRANGE", self.keys.state(State(state)), 0, 0)
        assert self.driver.scripts.purge(state, 1) == len(first)
        for item in first:
            self.known.remove(item.decode())

    @invariant()
    def everything_agrees(self) -> None:
        """Look at the store after each step."""
        self.check_everything()

    # --- the end -----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Let one worker do all that is left."""
        for delivery in list(self.holder.values()):
            self.settle_one(delivery, "completed", 0)
        for _ in range(20 + 4 * len(self.known)):
            self.driver.scripts.promote()
            got = self.fetch_for("w1")
            for delivery in got:
                self.settle_one(delivery, "completed", 0)
            if all(job.status in FINAL for job in self.look_at(self.known).values()):
                return
            if not got:
                self.driver.pass_ms(1)
        left = {
            job_id: job.status for job_id, job in self.look_at(self.known).items() if job.status not in FINAL
        }
        raise AssertionError(f"no worker ever gets to these jobs: {left}")

    def check_nothing_left(self) -> None:
        """After all jobs have been purged only what has a bound or a time to live remains."""
        self.check_everything()
        for state in FINAL:
            while self.driver.scripts.purge(state, 100):
                pass
        for worker in WORKERS:
            self.driver.scripts.leave(worker)
        left = [name for name in self.driver.key_names() if not name.startswith("idempotency:")]
        assert set(left) - {"bell:jobs", "looked", "unsealed:lost"} == {"events", "seq"}


def test_any_interleaving_keeps_every_job_in_one_place(valkey: str) -> None:
    """None lost, none settled twice, none stuck, whatever happens in whatever order."""
    machine = type("Interleavings", (Interleavings,), {"url": valkey})
    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
