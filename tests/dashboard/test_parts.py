"""The parts that need no browser: sessions, failed sign-ins, the charts' arithmetic, safe redirects."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.core.daemon import Daemon
from ingress.core.http.app_state import AppState
from ingress.dashboard.actions import safe_next
from ingress.dashboard.charts import HEIGHT, WIDTH, latency, span, throughput
from ingress.dashboard.labels import clock, output_text, took
from ingress.dashboard.overview import read_overview
from ingress.dashboard.sessions import (
    ATTEMPTS_MAX,
    COOKIE,
    IDLE_S,
    LIFE_S,
    WINDOW_S,
    Sessions,
    SignInLimit,
    cookies_of,
    is_same,
)
from ingress.dashboard.state import DashboardState
from middleware.job.metrics import MetricPoint, Metrics
from middleware.job.schema import make_job
from ops.settings.load import LoadedSettings
from ops.tokens import Tokens
from ops.workspace import Workspace
from tests.workers import running_worker

_NOW_MS = 1_800_000_000_000


class Clock:
    """A clock that is set by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def tokens(workspace: Workspace) -> Tokens:
    """Tokens of a workspace."""
    return Tokens(workspace)


def test_session_ends_by_itself(tokens: Tokens) -> None:
    """An unused session ends after twelve hours, any session after a week."""
    clock = Clock()
    sessions = Sessions(tokens, clock_s=clock)
    token = tokens.make("me", "view")
    idle, busy = sessions.begin(token), sessions.begin(token)
    assert idle is not None
    assert busy is not None
    for _ in range(int(LIFE_S / IDLE_S)):
        clock.now_s += IDLE_S - 1
        assert sessions.find({COOKIE: busy}) is not None
    assert sessions.find({COOKIE: idle}) is None
    clock.now_s += IDLE_S - 1
    assert sessions.find({COOKIE: busy}) is None
    assert len(sessions) == 0


def test_sessions_are_bounded(tokens: Tokens) -> None:
    """Of too many, the one that has not been used for the longest goes."""
    sessions = Sessions(tokens, limit=3)
    token = tokens.make("me", "view")
    keys = [str(sessions.begin(token)) for _ in range(3)]
    assert sessions.find({COOKIE: keys[0]}) is not None
    keys.append(str(sessions.begin(token)))
    assert len(sessions) == 3
    assert [sessions.find({COOKIE: key}) is not None for key in keys] == [True, False, True, True]


def test_session_has_the_scope_of_now(tokens: Tokens) -> None:
    """The token is looked up with every request: a revoked one opens nothing, nor does a wrong one."""
    sessions = Sessions(tokens)
    key = str(sessions.begin(tokens.make("me", "submit")))
    found = sessions.find({COOKIE: key})
    assert found is not None
    assert found[1].scope == "submit"
    tokens.revoke("me")
    assert sessions.find({COOKIE: key}) is None
    assert sessions.begin("3ox_nothing") is None


def test_failed_tries_wait() -> None:
    """Ten failures within a minute are enough; others are not kept waiting for them."""
    clock = Clock()
    limit = SignInLimit(clock_s=clock)
    for _ in range(ATTEMPTS_MAX):
        assert limit.wait_s("here") == 0
        limit.record_failure("here")
    assert limit.wait_s("here") == WINDOW_S
    assert limit.wait_s("there") == 0
    clock.now_s += WINDOW_S
    assert limit.wait_s("here") == 0


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\nb", None]
)
def test_next_page_is_ours(path: str | None) -> None:
    """Signing in never redirects to another site."""
    assert safe_next(path) == "/"


def test_empty_tokens_are_never_the_same() -> None:
    """What is missing on both sides opens nothing."""
    assert not is_same(None, None)
    assert not is_same("", "")
    assert is_same("a", "a")


@given(st.text(max_size=200))
def test_any_cookie_header_is_read(header: str) -> None:
    """No header breaks the reading of cookies."""
    assert isinstance(cookies_of(header), dict)


@given(st.text(max_size=200))
def test_output_is_harmless(text: str) -> None:
    """Whatever a job writes, no control character is left but line ends and tabs."""
    assert all(letter >= " " or letter in "\n\t" for letter in output_text(text))
    assert "\u202e" not in output_text(text)


def point(ago_s: float, done_per_s: float, run_ms: float | None) -> MetricPoint:
    """Make a sample."""
    return MetricPoint(
        at_ms=_NOW_MS - round(ago_s * 1000),
        window_s=10.0,
        states={},
        completed_per_s=done_per_s,
        failed_per_s=0.1,
        run_p50_ms=run_ms,
        run_p95_ms=run_ms,
    )


def test_throughput_counts() -> None:
    """Samples are added up by the minute; what is older than an hour is not drawn."""
    drawn = throughput([point(ago, 2.0, None) for ago in (5, 15, 70, 3700)], _NOW_MS)
    assert drawn.completed == 60
    assert drawn.failed == 3
    assert drawn.last_minute == 42
    assert drawn.peak == 42
    assert len(drawn.bars) == 2
    assert throughput([], _NOW_MS).bars == []


@given(st.lists(st.tuples(st.floats(0, 4000), st.floats(0, 1e5), st.none() | st.floats(0, 1e9)), max_size=80))
def test_charts_stay_in_their_frame(samples: list[tuple[float, float, float | None]]) -> None:
    """No value is drawn outside of the plot."""
    points = [point(*sample) for sample in samples]
    for bar in throughput(points, _NOW_MS).bars:
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH + 0.2
        assert -0.2 <= bar.failed_y <= bar.y <= HEIGHT
    for line in latency(points, _NOW_MS).lines:
        for pair in line.path.replace("H", " ").replace("L", "M").split("M")[1:]:
            x, y = (float(number) for number in pair.split()[:2])
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (42_000, "42 s"), (90_000, "1.5 min")]
)
def test_spans(ms: float, text: str) -> None:
    """Spans are written in the unit that fits."""
    assert span(ms) == text


def test_times_have_date_and_year_where_needed() -> None:
    """Today: the time; another day: the date; another year: the year too."""
    now = datetime.now(UTC)
    today, year = now.date().isoformat(), now.year
    assert clock(f"{today}T01:02:03.456Z") == "01:02:03"
    assert clock(f"{year - 1}-02-03T04:05:06.789Z") == f"{year - 1}-02-03 04:05"
    other = "01-31" if now.month != 1 else "02-28"
    assert clock(f"{year}-{other}T04:05:06.789Z") == f"{other} 04:05"


def test_a_short_run_is_shown_in_milliseconds() -> None:
    """As in the timeline, not as 0.0s."""
    assert took("2026-01-02T03:04:05.000Z", "2026-01-02T03:04:05.008Z") == "8 ms"
    assert took("2026-01-02T03:04:05.000Z", "2026-01-02T03:04:09.500Z") == "4.5s"


def test_the_charts_go_by_the_stores_clock(
    loaded: LoadedSettings, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is an hour ahead shows what ended a moment ago as the minute that runs."""
    dashboard = DashboardState(AppState(Daemon("rest", loaded)))
    with running_worker(dashboard.bridge, environ):
        job = make_job("heartbeat", {}, source="python")
        dashboard.bridge.submit(job)
        assert dashboard.bridge.follower.wait(job.job_id, timeout_s=20).status == "completed"
    Metrics(dashboard.bridge.reader).sample("10s")
    ahead_ns = time.time_ns() + 3_600 * 1_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: ahead_ns)
    assert read_overview(dashboard).throughput.last_minute == 1
