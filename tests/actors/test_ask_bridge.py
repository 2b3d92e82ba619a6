"""``ask`` through a real worker: fallback in time, parking, what ``3ox jobs`` and ``status`` show of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ingress.core.text import count_of
from ingress.dispatch import Bridge
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import FakeOpenAI, Reply, answers, hangs, refuses
from tests.support import clean_environ, eventually, run_3ox
from tests.tools import require_library
from tests.workers import running_worker, sweep

TIMEOUT_S = 1.0
SETTINGS = f"""
[ask]
providers = ["openai", "anthropic"]
[ask.openai]
timeout_s = {TIMEOUT_S}
[ask.anthropic]
timeout_s = {TIMEOUT_S}
"""


class Place:
    """A bridge with one worker and two model servers."""

    def __init__(self, environ: dict[str, str], openai: FakeOpenAI, anthropic: FakeAnthropic) -> None:
        self.environ = environ
        self.openai = openai
        self.anthropic = anthropic
        self.bridge = Bridge(load_settings(environ=environ))

    def queue(self, prompt: str = "What is up?", **fields: Any) -> str:
        """Queue a prompt and return its job id."""
        job = make_job("ask", {"prompt": prompt, **fields.pop("payload", {})}, source="python", **fields)
        return self.bridge.submit(job).job_id

    def ended(self, job_id: str) -> JobRecord:
        """Wait for a job's end."""
        return self.bridge.follower.wait(job_id, timeout_s=30.0)

    def job(self, job_id: str) -> JobRecord:
        """Return a job as it is."""
        return self.bridge.reader.job(job_id)


@pytest.fixture(scope="module")
def running(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The place, shared by the tests of this module."""
    home = tmp_path_factory.mktemp("ask")
    (home / "3ox.toml").write_text(SETTINGS)
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        environ = clean_environ(
            {
                "BRIDGE_HOME": str(home),
                "BRIDGE_REDIS_URL": valkey,
                "BRIDGE_KEY_PREFIX": "task:",
                "OPENAI_API_KEY": "sk-test-0123456789",
                "OPENAI_BASE_URL": openai.base_url,
                "ANTHROPIC_API_KEY": "sk-ant-0123456789",
                "ANTHROPIC_BASE_URL": anthropic.base_url,
            }
        )
        place = Place(environ, openai, anthropic)
        place.bridge.loaded.workspace.create()
        with running_worker(place.bridge, environ):
            # Both protocols: the worker imports the model library after its start.
            for provider in ("openai", "anthropic"):
                first = place.queue("first", payload={"provider": provider})
                place.bridge.follower.wait(first, timeout_s=60.0)
            yield place
        sweep(environ)


@pytest.fixture
def place(running: Place) -> Place:
    """The place, with nothing asked yet and nothing planned."""
    running.openai.requests.clear()
    running.anthropic.requests.clear()
    return running


def took_s(record: JobRecord) -> float:
    """Return how long the last attempt took."""
    assert record.started_at is not None
    assert record.completed_at is not None
    ends = datetime.fromisoformat(record.completed_at)
    return (ends - datetime.fromisoformat(record.started_at)).total_seconds()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refuses(500, "oops"), "500"),
        (refuses(429, "slow"), "429"),
        (hangs(), "timed out"),
        (None, "refused the connection"),
    ],
    ids=["500", "429", "hangs", "refuses"],
)
def test_the_second_answers_in_time(place: Place, reply: Reply | None, reason: str) -> None:
    """Whatever the first one does, the answer is there within its time-out and a second."""
    file = Path(place.environ["BRIDGE_HOME"], "3ox.toml")
    if reply is None:
        gone = FakeOpenAI()
        gone.stop_listening()
        file.write_text(SETTINGS.replace("[ask.openai]", f"[ask.openai]\nbase_url = '{gone.base_url}'"))
    else:
        file.write_text(SETTINGS)
        place.openai.plan(reply)
    place.anthropic.plan(answers("from ", "the second", finish_reason="end_turn"))
    record = place.ended(place.queue())
    file.write_text(SETTINGS)
    assert (record.status, record.attempt) == ("completed", 1), record.reason
    assert record.result["text"] == "from the second"
    assert reason in record.result["fallbacks"][0]["reason"]
    assert took_s(record) < TIMEOUT_S + 1


def test_jobs_show_provider_tokens_and_cost(place: Place) -> None:
    """`3ox jobs ID --json` has them; `3ox status` has the day's."""
    before = json.loads(run_3ox("status", "--json", environ=place.environ).stdout)["ask"]
    place.openai.plan(answers("a", "b"))
    job_id = place.queue()
    place.ended(job_id)
    shown = json.loads(run_3ox("jobs", job_id, "--json", environ=place.environ).stdout)["result"]
    assert shown["provider"] == "openai"
    assert shown["model"] == "gpt-4o-mini"
    assert (shown["tokens_in"], shown["tokens_out"]) == (5, 2)
    assert shown["cost_usd"] == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)
    after = json.loads(run_3ox("status", "--json", environ=place.environ).stdout)["ask"]
    assert after["answers"] == before["answers"] + 1
    assert after["tokens"] == before["tokens"] + 7
    assert after["cost_usd"] == pytest.approx(before["cost_usd"] + shown["cost_usd"])
    shown_day = f"today: {count_of(after['answers'], 'paid answer')}, "
    assert shown_day in run_3ox("status", environ=place.environ).stdout


def test_a_bad_request_is_final(place: Place) -> None:
    """A 400 is neither retried nor asked of anybody else."""
    place.openai.plan(refuses(400, "bad schema"))
    record = place.ended(place.queue(max_retries=5))
    assert (record.status, record.attempt) == ("failed", 1)
    assert "400: bad schema" in record.reason
    assert (len(place.openai.requests), place.anthropic.requests) == (1, [])


def test_limited_everywhere_parks(place: Place) -> None:
    """The job waits for the time that was named, says so, uses up no retry, and completes."""
    for _ in range(2):
        place.openai.plan(refuses(429, "slow", retry_after_s=1))
        place.anthropic.plan(refuses(429, "slow", retry_after_s=2))
    place.openai.plan(answers("at last"))
    begun_s = time.monotonic()
    job_id = place.queue(max_retries=0)
    eventually(lambda: place.job(job_id).status == "retrying")
    parked = place.job(job_id)
    assert parked.reason.startswith("parked until 2")
    assert "openai: " in parked.reason
    assert parked.due_at is not None
    record = place.ended(job_id)
    assert (record.status, record.attempt, record.result["text"]) == ("completed", 3, "at last")
    assert time.monotonic() - begun_s > 3  # 1 s as named, then 2 s: a repeated 1 s is doubled
    assert [attempt.status for attempt in record.attempts] == ["retrying", "retrying", "completed"]
    assert len(place.openai.requests) == 3


def test_a_failure_after_a_park_is_the_first(place: Place) -> None:
    """Parked attempts are not taken for failed ones."""
    place.openai.plan(refuses(429, "slow", retry_after_s=0), refuses(503, "busy"), answers("there"))
    place.anthropic.plan(refuses(429, "slow", retry_after_s=0), refuses(503, "busy"))
    record = place.ended(place.queue(max_retries=1))
    assert (record.status, record.attempt) == ("completed", 3)
    assert record.attempts[1].reason.startswith("attempt 2 of 3 failed")


def test_too_long_a_wait_fails_at_once(place: Place) -> None:
    """A wait beyond the job's own timeout fails the job; the reason names the wait."""
    place.openai.plan(refuses(429, "tomorrow", retry_after_s=7200))
    place.anthropic.plan(refuses(429, "tomorrow", retry_after_s=7100))
    record = place.ended(place.queue(timeout_seconds=60))
    assert (record.status, record.attempt) == ("failed", 1)
    assert record.reason.startswith(
        "failed: it would have to wait 7100 s; the limit is 60 s: No provider answers"
    )
    assert record.error is not None
    assert record.error.type == "JobParked"


def test_the_model_is_seen_in_status(place: Place) -> None:
    """The offline model of a worker is listed with its memory, for as long as it is there."""
    require_library("libgomp.so.1")
    record = place.ended(place.queue("Say hello.", payload={"provider": "local", "max_tokens": 4}))
    assert (record.status, record.result["provider"]) == ("completed", "local"), record.reason
    (model,) = json.loads(run_3ox("status", "--json", environ=place.environ).stdout)["models"]
    assert model["name"] == "SmolLM2-135M-Instruct"
    assert model["memory_bytes"] > 50_000_000
    assert f"pid {model['pid']}, " in run_3ox("status", environ=place.environ).stdout
