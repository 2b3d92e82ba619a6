"""The registry of job types: what follows from a declaration, and a type that is added at run time."""

from __future__ import annotations

import msgspec
import pytest

from middleware.job.base import Job
from middleware.job.registry import JobType, JobTypes, Payload
from middleware.job.types import DELIVER, JOB_TYPES
from ops.errors import InvalidJob, SettingsError
from ops.settings.load import Settings, TypeOverrides


class NotePayload(Payload, frozen=True, kw_only=True):
    """A note."""

    text: str


def test_a_type_can_be_added_at_run_time() -> None:
    """Its jobs are decoded from then on, beside those of the other types."""
    types = JobTypes()
    types.add(JobType(name="one", summary="One.", payload=NotePayload))
    assert types.decoder.decode(b'{"job_type":"one","payload":{"text":"a"}}').payload.text == "a"
    types.add(JobType(name="two", summary="Two.", payload=NotePayload, needs_project=True))
    decoded = types.decoder.decode(b'{"job_type":"two","project":"p","payload":{"text":"b"}}')
    assert (decoded.job_type, decoded.payload, decoded.project) == ("two", NotePayload(text="b"), "p")
    assert isinstance(decoded, Job)
    with pytest.raises(msgspec.ValidationError, match="project"):
        types.decoder.decode(b'{"job_type":"two","payload":{"text":"b"}}')
    with pytest.raises(ValueError, match="'two' is declared twice"):
        types.add(JobType(name="two", summary="Two.", payload=NotePayload))


def test_structs_are_named_after_the_payload() -> None:
    """The names are part of the REST contract."""
    for name in JOB_TYPES:
        declared = JOB_TYPES.get(name)
        assert declared is not None
        assert declared.payload is not None
        struct = JOB_TYPES.struct(name)
        assert struct.__name__ == declared.payload.__name__.replace("Payload", "Job")
        assert struct.__doc__ == declared.summary


def test_internal_types_cannot_be_submitted() -> None:
    """They are declared like the others, and in no list for clients."""
    assert DELIVER not in JOB_TYPES
    assert DELIVER not in list(JOB_TYPES)
    assert DELIVER in [item.name for item in JOB_TYPES.declared()]
    with pytest.raises(InvalidJob, match=f"Unknown job type '{DELIVER}'"):
        JOB_TYPES.require(DELIVER, field="type")


def test_an_unknown_type_names_the_nearest() -> None:
    """And lists all that can be submitted."""
    with pytest.raises(InvalidJob) as caught:
        JOB_TYPES.require("shel.cmd", field="type")
    assert caught.value.field == "type"
    assert caught.value.remedy.startswith("Did you mean 'shell.cmd'? Use one of: ask, ")


def test_limits() -> None:
    """The settings of a type beat its own limits, which beat the general ones; 0 counts as given."""
    settings = Settings(default_max_retries=7, types={"ask": TypeOverrides(max_retries=0)})
    assert JOB_TYPES.limits("ask", settings).max_retries == 0
    assert JOB_TYPES.limits("shell.cmd", settings).max_retries == 0
    assert JOB_TYPES.limits("telegram", settings).max_retries == 7
    assert JOB_TYPES.limits("heartbeat", settings).timeout_s == 30.0
    assert JOB_TYPES.limits("task.custom", settings).timeout_s == 3600.0
    assert JOB_TYPES.limits("rest.request", settings).backoff_max_s == 300.0
    assert JOB_TYPES.limits("unknown", settings).max_retries == 7


def test_unknown_types_in_the_settings_are_named() -> None:
    """An error of the settings, which ends a command with 2."""
    JOB_TYPES.require_settings(Settings(types={DELIVER: TypeOverrides(max_retries=1)}))
    with pytest.raises(
        SettingsError, match=r"Unknown job type 'shel.cmd' in .*Did you mean 'shell.cmd'"
    ) as caught:
        JOB_TYPES.require_settings(Settings(types={"shel.cmd": TypeOverrides()}))
    assert caught.value.exit_code == 2


def test_what_runs_programs_is_guarded() -> None:
    """An unknown type is treated as if it did."""
    guarded = {name for name in JOB_TYPES if JOB_TYPES.runs_programs(name)}
    assert guarded == {"shell.cmd", "task.custom"}
    assert JOB_TYPES.runs_programs("unknown")
    assert not JOB_TYPES.runs_programs(DELIVER)


def test_what_is_delivered_by_default() -> None:
    """The help of ``deliver.types`` says the same."""
    declared = [JOB_TYPES.get(name) for name in JOB_TYPES]
    assert {item.name for item in declared if item and not item.delivers} == {"shell.cmd", "heartbeat"}
