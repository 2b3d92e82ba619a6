"""What a session stores: each turn once per job, limited in number and time."""

from __future__ import annotations

import pytest

from middleware.broker.session_writes import remember
from middleware.job import sessions as sessions_module
from middleware.job.sessions import SessionMessage, Sessions, cut_text
from ops.errors import SessionNotFound
from tests.middleware.driver import Delivery, Driver

DAY_S = 86_400


@pytest.fixture
def sessions(driver: Driver) -> Sessions:
    """The read side, under the driver's prefix."""
    return Sessions(driver.store, driver.prefix)


def say(
    driver: Driver,
    delivery: Delivery,
    answer: str = "fine",
    *,
    session: str = "s1",
    messages_max: int = 50,
    ttl_s: int = 7 * DAY_S,
) -> bool:
    """Store a question and its answer, as the worker with the job does."""
    at = "2026-01-02T03:04:05.678Z"
    question = SessionMessage(job_id=delivery.job_id, role="user", at=at, text="how is it?", source="cli")
    return remember(
        driver.scripts,
        session,
        question,
        SessionMessage(job_id=delivery.job_id, role="assistant", at=at, text=answer),
        worker_id=delivery.worker,
        attempt=delivery.attempt,
        messages_max=messages_max,
        ttl_s=ttl_s,
    )


def take_new(driver: Driver, worker: str = "w1") -> Delivery:
    """Add a job and fetch it."""
    driver.add()
    return driver.take(worker)


def texts(sessions: Sessions, session: str = "s1") -> list[str]:
    """Return the messages of a session."""
    return [message.text for message in sessions.messages(session)]


def test_a_turn_is_written_whole(driver: Driver, sessions: Sessions) -> None:
    """Question and answer are stored in order, with job, source and time, and counted."""
    delivery = take_new(driver)
    assert say(driver, delivery)
    question, answer = sessions.messages("s1")
    assert (question.role, question.text, question.source) == ("user", "how is it?", "cli")
    assert (answer.role, answer.text, answer.job_id) == ("assistant", "fine", delivery.job_id)
    facts = sessions.facts("s1")
    assert (facts.messages, facts.kept) == (2, 2)
    assert 7 * DAY_S - 60 < facts.expires_s <= 7 * DAY_S


def test_a_session_begins_with_its_first_question(driver: Driver, sessions: Sessions) -> None:
    """And not by its first answer; later attempts do not move it."""
    assert say(driver, take_new(driver))
    assert say(driver, take_new(driver))
    facts = sessions.facts("s1")
    assert facts.began_at == sessions.messages("s1")[0].at == "2026-01-02T03:04:05.678Z"
    assert facts.last_at > facts.began_at


def test_the_same_write_again_changes_nothing(driver: Driver, sessions: Sessions) -> None:
    """The worker writes again after a lost reply; the session has the turn once."""
    delivery = take_new(driver)
    assert say(driver, delivery)
    assert say(driver, delivery)
    assert texts(sessions) == ["how is it?", "fine"]
    assert sessions.facts("s1").messages == 2


def test_a_recovered_job_has_one_turn_with_its_last_answer(driver: Driver, sessions: Sessions) -> None:
    """A worker that died after it wrote leaves its answer; the next attempt replaces it."""
    delivery = take_new(driver, "dies")
    assert say(driver, delivery, "first answer")
    other = take_new(driver, "other")
    assert say(driver, other, "of another job")
    driver.scripts.recover("dies")
    again = driver.take("lives")
    assert again.job_id == delivery.job_id
    assert say(driver, again, "second answer")
    assert texts(sessions) == ["how is it?", "second answer", "how is it?", "of another job"]
    assert sessions.facts("s1").messages == 4


def test_a_worker_that_lost_the_job_writes_nothing(driver: Driver, sessions: Sessions) -> None:
    """A worker that was considered dead is refused, also if it has the job again by then."""
    delivery = take_new(driver, "slow")
    driver.scripts.recover("slow")
    assert not say(driver, delivery)
    again = driver.take("slow")
    assert again.attempt == delivery.attempt + 1
    assert not say(driver, delivery, "late")
    assert say(driver, again, "in time")
    assert texts(sessions) == ["how is it?", "in time"]


def test_a_settled_job_writes_nothing_more(driver: Driver, sessions: Sessions) -> None:
    """What arrives after the end of the job is not stored."""
    delivery = take_new(driver)
    driver.settle(delivery)
    assert not say(driver, delivery)
    assert texts(sessions) == []


def test_the_last_messages_are_kept(driver: Driver, sessions: Sessions) -> None:
    """Older ones are dropped; the count continues."""
    for number in range(4):
        assert say(driver, take_new(driver), f"answer {number}", messages_max=6)
    assert texts(sessions)[1::2] == ["answer 1", "answer 2", "answer 3"]
    facts = sessions.facts("s1")
    assert (facts.messages, facts.kept) == (8, 6)


def test_a_turn_whose_question_was_dropped_is_not_written_twice(driver: Driver, sessions: Sessions) -> None:
    """An odd limit can leave half a turn; its second answer replaces the first."""
    delivery = take_new(driver, "dies")
    assert say(driver, delivery, "first", messages_max=3)
    assert say(driver, take_new(driver), "other", messages_max=3)
    assert texts(sessions) == ["first", "how is it?", "other"]
    driver.scripts.recover("dies")
    assert say(driver, driver.take(), "second", messages_max=3)
    assert texts(sessions) == ["second", "how is it?", "other"]


def test_a_text_cannot_pass_for_another_job(driver: Driver, sessions: Sessions) -> None:
    """A message that contains a job id in JSON form still belongs to its own job."""
    first, second = take_new(driver), take_new(driver)
    assert say(driver, first, f'{{"job_id":"{second.job_id}"}}')
    assert say(driver, second, "mine")
    assert len(texts(sessions)) == 4


def test_a_silent_session_is_forgotten(driver: Driver, sessions: Sessions) -> None:
    """All keys have a time to live, and the list drops expired sessions."""
    assert say(driver, take_new(driver), ttl_s=DAY_S)
    for key in (driver.keys.session("s1"), driver.keys.session_facts("s1")):
        assert 0 < driver.store.call("PTTL", key) <= DAY_S * 1000
    assert [facts.session_id for facts in sessions.latest()] == ["s1"]
    driver.store.call("PEXPIRE", driver.keys.session("s1"), 1)
    driver.pass_ms(5)
    assert sessions.latest() == []
    with pytest.raises(SessionNotFound):
        sessions.facts("s1")
    old_ms = driver.now_ms() - 2 * DAY_S * 1000
    driver.store.call("ZADD", driver.keys.sessions, old_ms, "s1")
    assert say(driver, take_new(driver), session="s2", ttl_s=DAY_S)
    assert driver.store.call("ZRANGE", driver.keys.sessions, 0, -1) == [b"s2"]


def test_the_number_of_sessions_is_bounded(
    driver: Driver, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session that was unused for longest is removed, with all its keys."""
    monkeypatch.setattr("middleware.broker.session_writes.SESSIONS_MAX", 2)
    assert sessions_module.SESSIONS_MAX == 10_000
    for name in ("s1", "s2", "s3"):
        assert say(driver, take_new(driver), session=name)
        driver.pass_ms(2)
    assert [facts.session_id for facts in sessions.latest()] == ["s3", "s2"]
    assert "session:s1" not in driver.key_names()
    assert "sessionfacts:s1" not in driver.key_names()


def test_clear_forgets_a_session(driver: Driver, sessions: Sessions) -> None:
    """Nothing of it remains, other sessions stay, and a second time nothing is found."""
    for name in ("s1", "s1:facts"):
        assert say(driver, take_new(driver), session=name)
    assert sessions.clear("s1") == 2
    assert [facts.session_id for facts in sessions.latest()] == ["s1:facts"]
    with pytest.raises(SessionNotFound):
        sessions.clear("s1")


def test_a_long_text_is_cut() -> None:
    """The beginning stays, within the limit and marked as cut; a short one is unchanged."""
    assert cut_text("short", 10) == "short"
    assert cut_text("a" * 30, 20) == "a" * 14 + " [...]"
