"""OpenTelemetry: one trace from the door to the worker and on to what the job causes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.dispatch import Bridge
from middleware.job.schema import make_job
from middleware.tracing import open_spans
from ops.settings.load import load_settings
from ops.trace_ids import parent_of, span_number, trace_number, traceparent
from tests.deploy.collector import Collector, attributes
from tests.rest.conftest import running_api
from tests.support import ROOT, clean_environ, eventually
from tests.workers import running_worker, sweep

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
#: 3 in the protocol's table of status codes is not used; 2 is an error.
ERROR, PRODUCER, CONSUMER = 2, 4, 5


@given(st.text(max_size=256))
def test_every_trace_id_stands_for_one_trace(text: str) -> None:
    """The same text always maps to the same valid numbers."""
    assert 0 < trace_number(text) < 2**128
    assert 0 < span_number(text) < 2**64
    assert trace_number(text) == trace_number(text)


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"01-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-01\n", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_a_header_counts_only_if_it_is_valid(header: str | None, valid: bool) -> None:
    """Anything else begins a trace of its own, as the standard has it."""
    assert traceparent(header) == (header if valid else None)
    if header is not None:
        assert (parent_of(header) is not None) == valid


def test_nothing_is_opened_without_an_endpoint() -> None:
    """No thread, no import."""
    assert open_spans("") is None


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector."""
    made = Collector()
    with made.listening():
        yield made


@pytest.fixture
def traced(environ: dict[str, str], collector: Collector) -> Iterator[dict[str, str]]:
    """The environment of a bridge that sends its traces to the collector."""
    yield {
        **environ,
        "BRIDGE_OTEL_ENDPOINT": collector.endpoint,
        "BRIDGE_BACKOFF_MIN_S": "0",
        "BRIDGE_BACKOFF_MAX_S": "0",
        "BRIDGE_API_PORT": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SERVICE_NAME": "our-bridge",
    }
    sweep(environ)


def test_a_trace_goes_from_the_door_to_the_worker(traced: dict[str, str], collector: Collector) -> None:
    """The span of the job hangs below the caller's, those of its attempts below the job's."""
    with running_api(traced) as api, running_worker(api.bridge, traced) as worker:
        header = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        asked = {"job_type": "heartbeat", "payload": {"nonce": "not-to-be-sent"}}
        answer = api.client()("POST", "/v1/jobs", asked, headers=header)
        assert answer.status == 202
        assert answer.json["trace_id"] == header["traceparent"]
        failing = make_job("shell.cmd", {"argv": ["false"]}, source="python", max_retries=1)
        api.bridge.submit(failing)
        spans = eventually(lambda: (found := collector.of(int(TRACE, 16)))[1:] and found)
        retried = eventually(lambda: (found := collector.of(trace_number(failing.job_id)))[2:] and found)
    check_the_answered_one(spans, answer.json["job_id"], worker.worker_id)
    check_the_retried_one(retried)
    assert collector.resources[0]["service.name"] == "our-bridge"
    assert "not-to-be-sent" not in str(collector.spans)


def check_the_answered_one(spans: list[Any], job_id: str, worker_id: str) -> None:
    """A job that came with the header of a trace."""
    job, attempt = spans
    assert (job.name, job.kind) == ("rest heartbeat", PRODUCER)
    assert job.parent_span_id.hex() == SPAN
    assert (attempt.name, attempt.kind) == ("run heartbeat", CONSUMER)
    assert attempt.parent_span_id == job.span_id
    assert job.span_id == span_number(job_id).to_bytes(8, "big")
    assert job.start_time_unix_nano < job.end_time_unix_nano == attempt.start_time_unix_nano
    found = attributes(attempt)
    assert (found["bridge.job_id"], found["bridge.worker_id"]) == (job_id, worker_id)
    assert (found["bridge.outcome"], found["bridge.attempt"]) == ("completed", 1)


def check_the_retried_one(spans: list[Any]) -> None:
    """A job with a trace of its own: one span of the job, one of each attempt; a failure is an error."""
    whole, *attempts = spans
    assert whole.name == "python shell.cmd"
    assert whole.parent_span_id == b""
    assert [span.parent_span_id for span in attempts] == [whole.span_id] * 2
    assert [attributes(span)["bridge.attempt"] for span in attempts] == [1, 2]
    assert [attributes(span)["bridge.outcome"] for span in attempts] == ["retrying", "failed"]
    assert {span.status.code for span in attempts} == {ERROR}


def test_a_collector_that_is_away_costs_no_job(environ: dict[str, str]) -> None:
    """Jobs are carried out as ever, and the worker stops in time."""
    own = {**environ, "BRIDGE_OTEL_ENDPOINT": "http://127.0.0.1:9/v1/traces", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    bridge = Bridge(load_settings(environ=own))
    with running_worker(bridge, own) as worker:
        job_ids = [bridge.submit(make_job("heartbeat", {})).job_id for _ in range(20)]
        eventually(lambda: all(bridge.reader.status_of(job_id) == "completed" for job_id in job_ids))
        worker.terminate()
        assert worker.wait(15.0) == 0
    sweep(own)


@pytest.mark.parametrize("there", [(), ("", "context", "trace"), ("", "context", "exporter/otlp")])
def test_without_the_extra_it_says_so(tmp_path: Path, there: tuple[str, ...]) -> None:
    """A process that cannot trace as configured names the remedy and goes on.

    Other libraries bring a part of OpenTelemetry along: nothing of it, its interface, or an exporter's root.
    """
    # Stands before the installed package, and hides it.
    if not there:
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    for name in there:
        folder = tmp_path / "opentelemetry" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    own = clean_environ({"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from middleware.tracing import open_spans; print(open_spans('http://127.0.0.1:9'))",
        ],
        env=own,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ran.stdout == "None\n"
    assert "pip install 'cmd-bridge[otel]'" in ran.stderr
