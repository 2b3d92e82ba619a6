"""The registry of job types: what follows from a declaration, and a type that is added at run time."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.process.results import TrackResult
from cmd_bridge import JOB_TYPES as DECLARED_IN
from middleware.job.base import Job
from middleware.job.registry import DeclaringModules, JobType, JobTypes, Payload
from middleware.job.types import DELIVER, JOB_TYPES
from ops.errors import InvalidJob, SettingsError
from ops.settings.load import Settings, TypeOverrides
from tests.payloads import declared
from tests.support import ROOT


class NotePayload(Payload, frozen=True, kw_only=True):
    """A note."""

    text: str


def test_a_type_can_be_added_at_run_time() -> None:
    """Its jobs are decoded from then on, beside those of the other types."""
    types = JobTypes()
    assert types.decoder("one") is None
    types.add(JobType(name="one", summary="One.", payload=NotePayload))
    one = types.decoder("one")
    assert one is not None
    assert one.decode(b'{"job_type":"one","payload":{"text":"a"}}').payload.text == "a"
    types.add(JobType(name="two", summary="Two.", payload=NotePayload, needs_project=True))
    two = types.decoder("two")
    assert two is not None
    decoded = two.decode(b'{"job_type":"two","project":"p","payload":{"text":"b"}}')
    assert (decoded.job_type, decoded.payload, decoded.project) == ("two", NotePayload(text="b"), "p")
    assert isinstance(decoded, Job)
    with pytest.raises(msgspec.ValidationError, match="project"):
        two.decode(b'{"job_type":"two","payload":{"text":"b"}}')
    with pytest.raises(ValueError, match="'two' is declared twice"):
        types.add(JobType(name="two", summary="Two.", payload=NotePayload))


def test_structs_are_named_after_the_payload() -> None:
    """The names are part of the REST contract."""
    for name in JOB_TYPES:
        kind = declared(name)
        assert kind.payload is not None
        struct = JOB_TYPES.struct(name)
        assert struct.__name__ == kind.payload.__name__.replace("Payload", "Job")
        assert struct.__doc__ == kind.summary


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
    JOB_TYPES.require_settings(Settings(types={DELIVER: TypeOverrides(max_retries=1)}), lambda: ())
    mistyped = Settings(types={"shel.cmd": TypeOverrides()})
    JOB_TYPES.require_settings(mistyped, lambda: {"shel.cmd": b""})
    JOB_TYPES.require_settings(mistyped, lambda: None)
    with pytest.raises(
        SettingsError, match=r"Unknown job type 'shel.cmd' in .*Did you mean 'shell.cmd'"
    ) as caught:
        JOB_TYPES.require_settings(mistyped, lambda: ())
    assert caught.value.exit_code == 2


def test_what_runs_programs_is_guarded() -> None:
    """An unknown type is treated as if it did."""
    guarded = {name for name in JOB_TYPES if JOB_TYPES.runs_programs(name)}
    assert guarded == {"shell.cmd", "task.custom"}
    assert JOB_TYPES.runs_programs("unknown")
    assert not JOB_TYPES.runs_programs(DELIVER)


def test_what_is_delivered_by_default() -> None:
    """The help of ``deliver.types`` says the same."""
    kinds = [JOB_TYPES.get(name) for name in JOB_TYPES]
    assert {item.name for item in kinds if item and not item.delivers} == {"shell.cmd", "heartbeat"}


@pytest.mark.parametrize("job_type", [item.name for item in JOB_TYPES.declared()])
def test_a_declaration_is_complete(job_type: str) -> None:
    """Its actor takes the payload and returns the result; its texts are fields; the example fits."""
    kind = declared(job_type)
    assert kind.payload is not None
    function = kind.function()
    hints = typing.get_type_hints(function)
    assert hints["payload"] is kind.payload
    if not kind.internal:
        assert set(_parts(hints["return"])) <= set(_parts(kind.result_type()))
        assert kind.title
    assert set(kind.title) <= set(kind.payload.__struct_fields__)
    for result in _parts(kind.result_type()) if kind.result_texts else ():
        assert set(kind.result_texts) & set(result.__struct_fields__) or result is TrackResult
    assert isinstance(msgspec.convert(kind.example, kind.payload), kind.payload)
    assert function.__module__ in {
        f"{DECLARED_IN}.{job_type.replace('.', '_')}",
        str(kind.actor).partition(":")[0],
    }


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


_LOADED = """
import sys
from middleware.job.schema import JOB_TYPES, make_job
make_job("task.custom", {"task": "x"}, project="p")
make_job("thumbnail", {})
print(*sorted(name for name in sys.modules if name.startswith("actors.")))
assert JOB_TYPES.declared()
print(*sorted(sys.modules))
"""


def test_declarations_are_loaded_when_they_are_asked_for() -> None:
    """One job needs one declaration; all of them need none of the libraries of the actors."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True, cwd=ROOT
    )
    one, everything = (set(line.split()) for line in done.stdout.splitlines())
    assert one == {"actors.job_types", "actors.job_types.task_custom"}
    assert (
        everything & {"dramatiq", "redis", "structlog", "httpx", "subprocess", "asyncio", "actors.registry"}
        == set()
    )
    assert everything >= {f"{DECLARED_IN}.{name.replace('.', '_')}" for name in JOB_TYPES}


def test_a_module_declares_the_type_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under any other name it would not be found."""
    (tmp_path / "some_types").mkdir()
    (tmp_path / "some_types" / "__init__.py").touch()
    (tmp_path / "some_types" / "note_book.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    types = JobTypes(DeclaringModules("some_types"))
    assert types.get("note.book") is None
    with pytest.raises(ValueError, match=r"some_types\.note_book declares no job type of its name"):
        types.declared()
    types.add(JobType(name="note.book", summary="One.", payload=NotePayload))
    assert [item.name for item in types.declared()] == ["note.book"]
