"""Taking jobs in: all or nothing for each job, once for each key, within the queue's limit."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from middleware.broker.admission import Admission
from middleware.broker.scripts import BATCH_MAX
from middleware.broker.transitions import Bounds
from middleware.job.base import KEY_SEPARATOR
from middleware.job.ids import new_job_id
from middleware.job.receipt import payload_sha256
from middleware.job.schema import JOB_TYPES, Job, decode_job, make_job
from middleware.job.states import State
from middleware.job.trust import Trust
from ops.errors import InvalidJob, QueueFull, UnknownProject
from ops.settings.load import LoadedSettings, ProjectSettings, load_settings
from ops.workspace import Workspace
from tests.middleware.driver import Driver

QUEUE_MAX = 5
SETTINGS = """
[resources]
gpu = 2

[projects.demo]
path = "WORKDESK"
command = ["true", "{task}"]
timeout_s = 7
max_retries = 2
concurrency = 3
"""


@pytest.fixture
def small(driver: Driver) -> Driver:
    """The same store with a queue that takes five jobs."""
    driver.scripts.bounds = Bounds(queue_max=QUEUE_MAX)
    return driver


@pytest.fixture
def loaded(workspace: Workspace) -> LoadedSettings:
    """Settings with a resource, a project and a small payload."""
    workspace.settings_file.write_text(SETTINGS)
    return load_settings(workspace.home, environ={}, overrides={"payload_max_bytes": 200})


@pytest.fixture
def admission(driver: Driver, loaded: LoadedSettings) -> Admission:
    """The way in, with those settings."""
    return Admission(
        driver.scripts, loaded.settings, lambda job_id: driver.reader.receipt(job_id, duplicate=True)
    )


def test_a_new_job_has_record_receipt_event_bell_and_indexes(driver: Driver) -> None:
    """One call leaves everything that a job needs."""
    before_ms = driver.now_ms()
    request = driver.request(job_type="task.custom", project="demo", priority=3)
    reply = driver.offer(request)[0]
    assert (reply.outcome, reply.job_id, reply.status) == ("new", request.job_id, "queued")
    assert before_ms <= reply.at_ms <= driver.now_ms()
    record = driver.job(request.job_id)
    assert (record.status, record.priority, record.project, record.attempt) == ("queued", 3, "demo", 0)
    receipt = driver.reader.receipt(request.job_id)
    assert [line.status for line in receipt.transitions] == ["queued"]
    assert receipt.input_sha256 == "0" * 64
    assert driver.bell() == 1
    for index in (
        driver.keys.index_all,
        driver.keys.index_type("task.custom"),
        driver.keys.index_project("demo"),
    ):
        assert driver.store.call("ZSCORE", index, request.job_id) is not None
    assert driver.store.call("ZSCORE", driver.keys.index_tail, request.job_id[::-1]) is not None
    entry = driver.store.call("XREVRANGE", driver.keys.events, "+", "-", "COUNT", 1)[0]
    assert entry[1] == [b"job", request.job_id.encode(), b"status", b"queued"]


def test_the_same_job_twice_is_one_job(driver: Driver) -> None:
    """Sending again after a lost reply does no harm, also when the job has moved on meanwhile."""
    request = driver.request()
    first, second = driver.offer(request)[0], driver.offer(request)[0]
    assert (first.outcome, second.outcome, second.job_id) == ("new", "duplicate", request.job_id)
    driver.settle(driver.take())
    third = driver.offer(request)[0]
    assert (third.outcome, third.status) == ("duplicate", "completed")
    assert driver.chain(request.job_id) == ["queued", "processing", "completed"]
    assert driver.fetch() == []


def test_the_same_id_twice_in_one_batch_is_one_job(driver: Driver) -> None:
    """A batch does not bypass the check."""
    request = driver.request()
    assert [reply.outcome for reply in driver.offer(request, request)] == ["new", "duplicate"]
    assert len(driver.fetch(room=5)) == 1


def test_an_idempotency_key_answers_with_the_first_job(driver: Driver) -> None:
    """A repeated command gets the job of the first one, in the same batch or later."""
    first = driver.request(idempotency_key="order 7")
    again = driver.request(idempotency_key="order 7")
    other = driver.request(idempotency_key="order 8")
    replies = driver.offer(first, again, other)
    assert [reply.outcome for reply in replies] == ["new", "duplicate", "new"]
    assert replies[1].job_id == first.job_id
    later = driver.offer(driver.request(idempotency_key="order 7"))[0]
    assert (later.outcome, later.job_id) == ("duplicate", first.job_id)


def test_one_of_several_idempotency_keys_suffices(driver: Driver) -> None:
    """All of them are recorded with the job, in one step; a line feed is part of a key."""
    first = driver.request(idempotency_key=KEY_SEPARATOR.join(("a", "b\nc")))
    others = [driver.request(idempotency_key=key) for key in ("b\nc", f"x{KEY_SEPARATOR}a", "c", "x")]
    replies = driver.offer(first, *others)
    assert [reply.outcome for reply in replies] == ["new", "duplicate", "duplicate", "new", "new"]
    assert replies[1].job_id == replies[2].job_id == first.job_id


def test_an_idempotency_key_ends_with_its_time_or_its_job(driver: Driver) -> None:
    """After the key's time, or when its job has been deleted, the command counts as new."""
    driver.scripts.bounds = Bounds(idempotency_ttl_ms=5)
    driver.add(idempotency_key="k")
    driver.pass_ms(6)
    driver.add(idempotency_key="k")
    driver.scripts.bounds = Bounds()
    first = driver.add(idempotency_key="long")
    driver.scripts.cancel(first, "test")
    driver.scripts.purge("cancelled", 10)
    assert driver.add(idempotency_key="long") != first
    assert 0 < driver.store.call("PTTL", f"{driver.prefix}idempotency:long") <= Bounds().idempotency_ttl_ms


def test_a_full_queue_refuses_with_the_number_that_wait(small: Driver) -> None:
    """Beyond the limit nothing of a job is written."""
    for _ in range(QUEUE_MAX):
        small.add()
    request = small.request()
    reply = small.offer(request)[0]
    assert (reply.outcome, reply.waiting) == ("full", QUEUE_MAX)
    assert not [name for name in small.key_names() if request.job_id in name]
    small.take()
    assert small.offer(request)[0].outcome == "new"


def test_a_batch_is_cut_where_the_queue_is_full(small: Driver) -> None:
    """Those that fit are taken, the rest is refused, each by itself."""
    requests = [small.request() for _ in range(QUEUE_MAX + 3)]
    assert [reply.outcome for reply in small.offer(*requests)] == ["new"] * QUEUE_MAX + ["full"] * 3


@pytest.mark.parametrize("delay_ms", [60_000, 0], ids=["delayed", "ready"])
def test_the_limit_counts_the_same_one_by_one_and_in_a_batch(small: Driver, delay_ms: int) -> None:
    """Whether a job is refused does not depend on the company it comes in."""
    singly = [small.offer(small.request(delay_ms=delay_ms))[0].outcome for _ in range(QUEUE_MAX + 2)]
    for state in (State.QUEUED, State.SCHEDULED):
        small.store.call("DEL", small.keys.state(state))
    together = [
        reply.outcome
        for reply in small.offer(*[small.request(delay_ms=delay_ms) for _ in range(QUEUE_MAX + 2)])
    ]
    assert singly == together


def test_a_big_batch_is_taken_whole_and_in_order(driver: Driver) -> None:
    """More jobs than one script call or one round trip carries keep their order."""
    count = BATCH_MAX * 7 + 1
    requests = [driver.request() for _ in range(count)]
    assert {reply.outcome for reply in driver.offer(*requests)} == {"new"}
    got = list(itertools.chain.from_iterable(driver.fetch(room=100) for _ in range(count // 100 + 1)))
    assert [item.job_id for item in got] == [request.job_id for request in requests]


def test_the_bell_holds_at_most_64_tokens(driver: Driver) -> None:
    """Many jobs without a consumer leave a bounded list of tokens."""
    driver.offer(*[driver.request() for _ in range(150)])
    driver.add()
    assert driver.bell() == 64


def test_the_event_stream_is_bounded(driver: Driver) -> None:
    """Old events go; the bound is approximate by one node of the stream (100 entries)."""
    driver.scripts.bounds = Bounds(events_max=200)
    for _ in range(1000):
        driver.offer(driver.request())
    assert 200 <= driver.store.call("XLEN", driver.keys.events) <= 300


def test_jobs_that_are_taken_together_share_an_event(driver: Driver) -> None:
    """A batch leaves one entry for each state, which names all its jobs."""
    requests = [driver.request() for _ in range(3)] + [driver.request(delay_ms=60_000)]
    driver.offer(*requests)
    entries = driver.store.call("XRANGE", driver.keys.events, "-", "+")
    named = {fields[3].decode(): fields[1].decode().split(",") for _, fields in entries}
    ids = [request.job_id for request in requests]
    assert named == {"queued": ids[:3], "scheduled": ids[3:]}


def test_a_job_waits_for_all_it_depends_on(driver: Driver) -> None:
    """It is released by the last completion, not before, and keeps its place in the order of arrival."""
    first, second = driver.add(), driver.add()
    late = driver.add(depends_on=[first, second])
    after = driver.add()
    assert driver.places(late) == [State.HELD]
    assert "2 other jobs" in driver.job(late).reason
    driver.settle(driver.take())
    assert driver.places(late) == [State.HELD]
    driver.settle(driver.take())
    assert [item.job_id for item in driver.fetch(room=5)] == [late, after]
    assert driver.store.call("EXISTS", f"{driver.prefix}dependents:{first}") == 0


def test_naming_a_dependency_twice_counts_once(driver: Driver) -> None:
    """A job that names the same dependency twice is released by its completion all the same."""
    first = driver.add()
    second = driver.add(depends_on=[first, first])
    driver.settle(driver.take())
    assert driver.status(second) == "queued"


def test_what_is_completed_already_is_not_waited_for(driver: Driver) -> None:
    """A dependency that has ended well holds nothing up."""
    done = driver.run()
    job_id = driver.add(depends_on=[done])
    assert driver.status(job_id) == "queued"


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_dependency_that_cannot_complete_is_refused(driver: Driver, outcome: str) -> None:
    """Depending on a job that has failed, was cancelled or never was is an error at once."""
    dead = driver.run(outcome)
    for dependency, why in ((dead, outcome), (new_job_id(), "unknown")):
        request = driver.request(depends_on=[dependency])
        reply = driver.offer(request)[0]
        assert (reply.outcome, reply.job_id, reply.status) == ("dependency", dependency, why)
        assert not [name for name in driver.key_names() if request.job_id in name]


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_failure_skips_everything_behind_it(driver: Driver, outcome: str) -> None:
    """A chain of dependents is cancelled to its end, each with the reason."""
    first = driver.add()
    second = driver.add(depends_on=[first])
    third = driver.add(depends_on=[second])
    other = driver.add()
    both = driver.add(depends_on=[other, second])
    driver.settle(driver.take(), outcome)
    for job_id, cause in ((second, first), (third, second), (both, second)):
        record = driver.job(job_id)
        assert record.status == "cancelled"
        assert f"skipped: it depends on {cause}" in record.reason
    driver.settle(driver.take())
    assert driver.status(both) == "cancelled"


def test_a_skipped_job_can_be_retried_by_hand(driver: Driver) -> None:
    """What has failed does not keep it any more; what has not ended yet still has to."""
    first, other = driver.add(), driver.add()
    job_id = driver.add(depends_on=[first, other])
    driver.settle(driver.take(), "failed")
    assert driver.scripts.requeue(job_id, "test") == ("queued", "held")
    delivery = driver.take(room=9)
    assert delivery.job_id == other
    driver.settle(delivery)
    assert driver.take().job_id == job_id


def test_a_dependent_dispatched_in_the_same_batch_finds_its_dependency(driver: Driver) -> None:
    """Jobs of a batch are taken in order, so a later one may depend on an earlier one."""
    first = driver.request()
    second = driver.request(depends_on=[first.job_id])
    assert [reply.status for reply in driver.offer(first, second)] == ["queued", "held"]


def test_a_delayed_job_is_scheduled_and_rings(driver: Driver) -> None:
    """It waits for its time, and the consumer that wakes learns when that is."""
    before_ms = driver.now_ms()
    job_id = driver.add(delay_ms=60_000)
    assert driver.places(job_id) == [State.SCHEDULED]
    due_ms = int(str(driver.field(job_id, "due")))
    assert before_ms + 60_000 <= due_ms <= driver.now_ms() + 60_000
    due = datetime.fromtimestamp(due_ms / 1000, tz=UTC)
    assert driver.job(job_id).reason == f"scheduled for {due:%Y-%m-%d %H:%M:%S} UTC"
    assert driver.bell() == 1
    fetched = driver.fetch_raw()
    assert fetched.jobs == []
    assert 0 < fetched.next_due_ms <= 60_000


def test_a_delay_counts_from_the_release_of_a_held_job(driver: Driver) -> None:
    """A dependent with a delay is scheduled when its last dependency completes, by its delay from then."""
    first = driver.add()
    second = driver.add(depends_on=[first], delay_ms=60_000)
    driver.pass_ms(3)
    released_ms = driver.now_ms()
    driver.settle(driver.take())
    assert driver.places(second) == [State.SCHEDULED]
    assert int(str(driver.field(second, "due"))) >= released_ms + 60_000


def test_a_job_held_for_approval_stays_with_its_reason(driver: Driver) -> None:
    """It rings no bell and reaches no worker."""
    job_id = driver.add(approval="it needs the approval of the operator")
    assert driver.places(job_id) == [State.HELD]
    assert driver.job(job_id).reason == "it needs the approval of the operator"
    assert (driver.bell(), driver.fetch()) == (0, [])


def test_intake_fills_in_limits_of_type_and_project(admission: Admission, loaded: LoadedSettings) -> None:
    """What the job leaves open comes from its project, else its type; what it says itself stays."""
    task = {"task": "x"}
    shell = admission.prepare(make_job("shell.cmd", {"argv": ["true"]})).job
    kind = JOB_TYPES.limits("shell.cmd", loaded.settings)
    assert (shell.timeout_seconds, shell.max_retries) == (kind.timeout_s, kind.max_retries)
    custom = admission.prepare(make_job("task.custom", task, project="demo")).job
    assert (custom.timeout_seconds, custom.max_retries) == (7, 2)
    own = admission.prepare(
        make_job("task.custom", task, project="demo", timeout_seconds=1, max_retries=0)
    ).job
    assert (own.timeout_seconds, own.max_retries) == (1, 0)


def test_a_job_without_a_priority_has_that_of_its_project(driver: Driver, loaded: LoadedSettings) -> None:
    """Whichever interface it came through; without a project, or one that names none, it is 5."""
    projects = {
        "fast": ProjectSettings(path=".", command=["true"], priority=2),
        "any": ProjectSettings(path=".", command=["true"]),
    }
    settings = msgspec.structs.replace(loaded.settings, projects=projects)
    admission = Admission(driver.scripts, settings, driver.reader.receipt)
    wanted = [("fast", None), ("fast", 7), ("any", None)]
    jobs = [make_job("task.custom", {"task": "x"}, project=name, priority=own) for name, own in wanted]
    receipts = admission.submit([*jobs, make_job("heartbeat", {}, project="fast"), make_job("heartbeat", {})])
    assert [driver.job(receipt.job_id).priority for receipt in receipts] == [2, 7, 5, 2, 5]


def test_one_submission_goes_by_the_settings_of_one_moment(driver: Driver, loaded: LoadedSettings) -> None:
    """A file that changes meanwhile counts from the next one on."""
    before = loaded.settings
    project = ProjectSettings(path=".", command=["true"], priority=3)
    after = msgspec.structs.replace(before, projects={"late": project})
    answers = [before, after]
    admission = Admission(driver.scripts, before, driver.reader.receipt)
    admission.follow_settings(lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    with pytest.raises(UnknownProject):
        admission.submit([make_job("task.custom", {"task": "x"}, project="late")])
    (receipt,) = admission.submit([make_job("task.custom", {"task": "x"}, project="late")])
    assert driver.job(receipt.job_id).priority == 3


def test_intake_turns_projects_and_resources_into_limits(admission: Admission) -> None:
    """A project's concurrency and the job's resources become what ``fetch`` counts."""
    job = make_job("task.custom", {"task": "x"}, project="demo", resources={"gpu": 2})
    assert admission.prepare(job).limits == "project:demo=1/3,gpu=2/2"


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth - 1):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("job", "field", "words"),
    [
        (make_job("heartbeat", {}, resources={"tpu": 1}), "resources", ["'tpu'", "[resources] tpu = 1"]),
        (make_job("heartbeat", {}, resources={"gpu": 3}), "resources", ["capacity is 2", "Ask for less"]),
        (make_job("heartbeat", {"nonce": "x" * 300}), "payload", ["bytes", "payload_max_bytes"]),
        (
            make_job("rest.request", {"endpoint": "x", "body": _nested(250)}),
            "payload",
            ["200 levels", "file"],
        ),
    ],
    ids=["unknown resource", "too much of a resource", "large payload", "deep payload"],
)
def test_intake_names_field_and_remedy(admission: Admission, job: Job, field: str, words: list[str]) -> None:
    """What does not fit the settings is refused before anything is written."""
    with pytest.raises(InvalidJob) as caught:
        admission.submit([job])
    assert caught.value.field == field
    assert all(word in str(caught.value) for word in words)


def test_intake_checks_all_jobs_before_it_takes_the_first(admission: Admission, driver: Driver) -> None:
    """One bad job in a batch means that none was taken."""
    good, bad = make_job("heartbeat", {}), make_job("task.custom", {"task": "x"}, project="dema")
    with pytest.raises(UnknownProject, match="Did you mean 'demo'"):
        admission.submit([good, bad])
    assert driver.key_names() == []


def test_intake_reports_a_full_queue_and_a_dead_dependency(admission: Admission, driver: Driver) -> None:
    """Both come back as errors with a remedy."""
    with pytest.raises(InvalidJob, match=r"depends on .*, which is unknown\. Name jobs that exist") as caught:
        admission.submit([make_job("heartbeat", {}, depends_on=[new_job_id()])])
    assert caught.value.field == "depends_on"
    driver.scripts.bounds = Bounds(queue_max=1)
    driver.add()
    with pytest.raises(QueueFull, match="1 jobs wait"):
        admission.submit([make_job("heartbeat", {})])


def test_receipt_of_a_duplicate_is_the_first_ones(admission: Admission) -> None:
    """It says that it is a duplicate and carries the first job's id and hash."""
    first = admission.submit([make_job("heartbeat", {"nonce": "a"}, idempotency_key="k")])[0]
    again = admission.submit([make_job("heartbeat", {"nonce": "b"}, idempotency_key="k")])[0]
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.job_id, again.input_sha256) == (first.job_id, first.input_sha256)


def test_input_hash_is_that_of_the_canonical_payload() -> None:
    """Anybody can compute it: sorted keys, no spaces."""
    job = make_job("shell.cmd", {"argv": ["true"], "env": {"B": "2", "A": "1"}})
    canonical = b'{"argv":["true"],"env":{"A":"1","B":"2"}}'
    assert payload_sha256(job) == hashlib.sha256(canonical).hexdigest()
    assert msgspec.json.decode(canonical) == msgspec.to_builtins(job.payload)


def test_an_iterator_is_taken_as_it_comes(driver: Driver, admission: Admission) -> None:
    """Of a generator those before a bad job are taken; of a list none is."""
    bad = make_job("heartbeat", {}, resources={"nothing": 1})
    good = [make_job("heartbeat", {}) for _ in range(BATCH_MAX * 3)]
    with pytest.raises(InvalidJob, match="Unknown resource"):
        admission.submit([*good, bad])
    assert driver.store.call("ZCARD", driver.keys.state(State.QUEUED)) == 0
    with pytest.raises(InvalidJob, match="Unknown resource"):
        admission.submit(iter([*good, bad]))
    assert driver.store.call("ZCARD", driver.keys.state(State.QUEUED)) >= BATCH_MAX
    assert [receipt.status for receipt in admission.submit(iter(good[:3]))] == ["queued"] * 3


def test_the_encoded_payload_is_the_one_that_is_hashed(admission: Admission) -> None:
    """It is encoded once; where it holds a mapping, the job keeps the order of its keys all the same."""
    plain = make_job("shell.cmd", {"argv": ["echo", "{}"], "stdin": "x"})
    ordered = make_job("rest.request", {"endpoint": "e", "query": {"b": "1", "a": "2"}})
    for job in (plain, ordered):
        prepared = admission.prepare(job)
        request = admission.request(prepared)
        assert request.input_sha256 == payload_sha256(job)
        assert decode_job(request.spec) == prepared.job
    payload = decode_job(admission.request(admission.prepare(ordered)).spec).payload
    assert list(payload.query) == ["b", "a"]


@pytest.mark.parametrize(
    ("parent", "given", "expected"),
    [
        (None, "operator", "operator"),
        ("operator", "member", "member"),
        ("member", "operator", "member"),
        ("member", "untrusted", "untrusted"),
        ("untrusted", "operator", "untrusted"),
    ],
)
def test_a_job_is_trusted_no_more_than_its_parent(
    driver: Driver, loaded: LoadedSettings, parent: Trust | None, given: Trust, expected: Trust
) -> None:
    """Whatever a running job claims for what it submits."""
    admission = Admission(driver.scripts, loaded.settings, driver.reader.receipt, parent_trust=lambda: parent)
    for jobs in ([make_job("heartbeat", {}, trust=given)], iter([make_job("heartbeat", {}, trust=given)])):
        (receipt,) = admission.submit(jobs)
        assert receipt.trust == driver.job(receipt.job_id).trust == expected
