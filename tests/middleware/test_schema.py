"""The job's contract: what fits is taken, what does not is refused with the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.job_types.heartbeat import HeartbeatPayload
from middleware.job.base import DEFAULT_PRIORITY
from middleware.job.ids import ALPHABET, ID_LENGTH, is_id_part, new_job_id
from middleware.job.schema import JOB_TYPES, ActorJob, decode_job, encode_job, make_job
from ops.errors import InvalidJob
from tests.payloads import declared, largest, smallest


def build(job_type: str, payload: Any = None, **fields: Any) -> Any:
    """Make a job with what its type needs."""
    needed = {"project": "demo", **fields} if declared(job_type).needs_project else fields
    return make_job(job_type, smallest(job_type) if payload is None else payload, **needed)


@pytest.mark.parametrize("payload_of", [smallest, largest])
@pytest.mark.parametrize("job_type", JOB_TYPES)
def test_every_type_survives_the_way_through_the_store(
    job_type: str, payload_of: Callable[[str], dict[str, Any]]
) -> None:
    """Encoded and decoded it is the same job of the same type."""
    job = build(
        job_type, payload_of(job_type), priority=3, metadata={"a": "b"}, depends_on=["x"], trace_id="t"
    )
    again = decode_job(encode_job(job))
    assert again == job
    assert again.job_type == job_type
    assert type(again) is type(job)


@pytest.mark.parametrize("job_type", JOB_TYPES)
def test_defaults_are_filled_in_and_left_out_of_the_store(job_type: str) -> None:
    """A plain job is small: only what was said is stored."""
    job = build(job_type)
    assert (job.priority, job.source, job.trace, job.version) == (None, "python", job.job_id, 1)
    assert job.rank == DEFAULT_PRIORITY
    stored = set(msgspec.json.decode(encode_job(job)))
    assert stored <= {"job_type", "job_id", "payload", "project"}


@pytest.mark.parametrize("job_type", JOB_TYPES)
def test_an_unknown_field_is_named_with_the_known_ones(job_type: str) -> None:
    """In the payload and in the job itself."""
    with pytest.raises(InvalidJob) as caught:
        build(job_type, {**smallest(job_type), "promt": 1})
    assert caught.value.field == "payload.promt"
    assert caught.value.exit_code == 2
    for known in largest(job_type):
        assert known in caught.value.remedy
    with pytest.raises(InvalidJob, match="'prioritty'") as caught:
        build(job_type, prioritty=1)
    assert caught.value.field == "prioritty"
    assert "priority" in caught.value.remedy


@pytest.mark.parametrize(
    ("job_type", "missing"),
    [(job_type, name) for job_type in JOB_TYPES for name in smallest(job_type)],
)
def test_a_missing_field_is_named(job_type: str, missing: str) -> None:
    """Each field that a payload cannot do without."""
    payload = {name: value for name, value in smallest(job_type).items() if name != missing}
    with pytest.raises(InvalidJob, match=f"Missing field 'payload.{missing}'") as caught:
        build(job_type, payload)
    assert caught.value.field == f"payload.{missing}"
    assert caught.value.remedy == "Add it."


def test_a_custom_task_needs_its_project() -> None:
    """The project is a field of the job, not of the payload."""
    with pytest.raises(InvalidJob, match="Missing field 'project'"):
        make_job("task.custom", {"task": "x"})


WRONG_PAYLOADS: list[tuple[str, dict[str, Any], str]] = [
    ("ask", {"prompt": ""}, "payload.prompt"),
    ("ask", {"prompt": 7}, "payload.prompt"),
    ("ask", {"prompt": "x", "max_tokens": 0}, "payload.max_tokens"),
    ("ingest.file", {**smallest("ingest.file"), "sha256": "xyz"}, "payload.sha256"),
    ("ingest.file", {**smallest("ingest.file"), "size_bytes": -1}, "payload.size_bytes"),
    ("telegram", {"chat_id": "seven", "text": "hi"}, "payload.chat_id"),
    ("telegram", {"chat_id": 7, "text": ""}, "payload.text"),
    ("rest.request", {"endpoint": "b", "headers": {"a": 1}}, "payload.headers"),
    ("shell.cmd", {"argv": []}, "payload.argv"),
    ("shell.cmd", {"argv": "ls -l"}, "payload.argv"),
    ("shell.cmd", {"argv": ["ls", 1]}, "payload.argv"),
    ("shell.cmd", {"argv": ["ls"], "env": ["A=1"]}, "payload.env"),
    ("heartbeat", {"nonce": 1}, "payload.nonce"),
    ("task.custom", {"task": ""}, "payload.task"),
]
WRONG_FIELDS: list[tuple[str, Any]] = [
    ("priority", 0),
    ("priority", 11),
    ("priority", "high"),
    ("timeout_seconds", 0),
    ("timeout_seconds", -5),
    ("timeout_seconds", 86_400 * 31),
    ("max_retries", -1),
    ("max_retries", 1000),
    ("depends_on", "abc"),
    ("depends_on", ["x"] * 101),
    ("resources", {"gpu": 0}),
    ("resources", {"g pu": 1}),
    ("idempotency_key", ""),
    ("idempotency_key", "x" * 257),
    ("metadata", {"a": 1}),
    ("project", "no spaces"),
    ("session_id", "-x"),
    ("session_id", "x\n"),
    ("job_id", "a b"),
    ("job_id", "x\n"),
    ("depends_on", ["x\n"]),
    ("source", ""),
    ("actor", "x" * 257),
]


@pytest.mark.parametrize(("job_type", "payload", "field"), WRONG_PAYLOADS)
def test_a_wrong_value_in_a_payload_is_named(job_type: str, payload: dict[str, Any], field: str) -> None:
    """The error leads to the field, in one line."""
    with pytest.raises(InvalidJob) as caught:
        build(job_type, payload)
    assert caught.value.field.startswith(field)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
def test_a_wrong_value_of_a_field_is_named(field: str, value: Any) -> None:
    """Bounds and forms of every field of the job."""
    with pytest.raises(InvalidJob) as caught:
        build("heartbeat", **{field: value})
    assert caught.value.field.startswith(field)
    assert caught.value.remedy


def test_an_unknown_job_type_may_be_an_actor() -> None:
    """It is checked at submission, where the types of all workers are known."""
    job = make_job("shell", {"argv": ["true"]})
    assert isinstance(job, ActorJob)
    assert decode_job(encode_job(job)) == job
    with pytest.raises(InvalidJob, match="Unknown job type 'deliver'"):
        make_job("deliver", {"job_id": "x", "sink": "outbox"})


@pytest.mark.parametrize("payload", [None, [], "text", 7], ids=repr)
def test_a_payload_that_is_no_mapping_is_refused(payload: Any) -> None:
    """A payload has named fields."""
    with pytest.raises(InvalidJob) as caught:
        make_job("heartbeat", payload)
    assert caught.value.field == "payload"


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"[]", b'{"job_type":"nope","payload":7}'], ids=repr)
def test_text_that_is_no_job_is_refused(text: bytes) -> None:
    """Broken JSON and JSON of something else raise our own error."""
    with pytest.raises(InvalidJob):
        decode_job(text)


def test_a_payload_may_be_given_as_its_struct() -> None:
    """The struct and the mapping make the same job."""
    by_struct = make_job("heartbeat", HeartbeatPayload(nonce="a"), job_id="x")
    assert by_struct == make_job("heartbeat", {"nonce": "a"}, job_id="x")


def test_a_job_cannot_be_changed() -> None:
    """A job cannot be changed while others refer to it."""
    job = build("heartbeat")
    with pytest.raises(AttributeError):
        job.priority = 1
    with pytest.raises(AttributeError):
        job.payload.nonce = "x"


@given(st.lists(st.integers(0, 2**48 - 1), min_size=2, max_size=50, unique=True))
def test_ids_sort_by_time(stamps_ms: list[int]) -> None:
    """Sorting the text sorts by the millisecond of creation, for the next 8,000 years."""
    ids = [new_job_id(stamp_ms) for stamp_ms in sorted(stamps_ms)]
    assert ids == sorted(ids)


@given(st.integers(0, 2**48 - 1))
def test_ids_are_safe_in_names_and_addresses(stamp_ms: int) -> None:
    """Twenty characters of the alphabet, whatever the time."""
    job_id = new_job_id(stamp_ms)
    assert len(job_id) == ID_LENGTH
    assert set(job_id) <= set(ALPHABET)
    assert is_id_part(job_id)
    assert all(is_id_part(job_id[:at]) and is_id_part(job_id[at:]) for at in range(1, ID_LENGTH))


def test_ids_of_one_millisecond_differ() -> None:
    """Fifty random bits keep jobs of the same moment apart."""
    assert len({new_job_id(0) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("text", ["", "abc!", "ilou", "a" * (ID_LENGTH + 1), "*", "a b", "é"])
def test_what_cannot_be_an_id_is_told_apart(text: str) -> None:
    """Wrong letters and wrong lengths never reach the store."""
    assert not is_id_part(text)
