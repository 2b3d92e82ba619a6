"""The lease and its fence, on a real store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ingress.clock.serve import is_dead_local_process, member_name
from middleware.broker.leadership import Leadership
from tests.clock.conftest import Office
from tests.support import eventually


def test_one_leads_and_stays_in_office(office: Office) -> None:
    """Who has the lease renews it; the others are told who it is and for how long."""
    one, two = office.candidate("one"), office.candidate("two")
    first = one.claim()
    assert first.term is not None
    assert first.new
    again = one.claim()
    assert again.term is not None
    assert (again.term.fence, again.new) == (first.term.fence, False)
    other = two.claim()
    assert (other.term, other.holder) == (None, "one")
    assert 0 < other.left_s <= one.lease_s
    assert two.term is None


def test_the_number_grows_with_each_new_leader(office: Office) -> None:
    """After a lease has ended, been given up, or been lost by its own holder."""
    one, two = office.candidate("one", lease_s=0.05), office.candidate("two")
    fences = [office.fence_of(one)]
    term = eventually(lambda: two.claim().term)
    assert term is not None
    assert one.term is None, "its own lease has ended by its own clock, too"
    fences.append(term.fence)
    two.release()
    fences.append(office.fence_of(one))
    office.end_lease()
    fences.append(office.fence_of(one))
    assert fences == sorted(set(fences))


def test_who_leads_no_more_writes_nothing(office: Office) -> None:
    """The number of its term is not the last one any more: it is fenced off."""
    one, two = office.candidate("one"), office.candidate("two")
    old = one.claim().term
    assert old is not None
    assert one.note(old, "schedules", {"a": "1"})
    office.end_lease()
    new = two.claim().term
    assert new is not None
    assert not one.note(old, "schedules", {"a": "old"})
    assert not one.forget(old, "schedules", ["a"])
    assert two.note(new, "schedules", {"a": "2"})
    assert office.read("schedules") == {"a": "2"}
    two.release()
    assert not two.note(new, "schedules", {"a": "late"}), "after it has given up the lease"
    assert office.read("schedules") == {"a": "2"}


def test_only_the_holder_gives_up_the_lease(office: Office) -> None:
    """One that was leader once does not end the term of the next."""
    one, two = office.candidate("one"), office.candidate("two")
    one.claim()
    office.end_lease()
    term = two.claim().term
    one.release()
    again = two.claim()
    assert term is not None
    assert again.term is not None
    assert again.term.fence == term.fence


def test_a_store_whose_clock_was_set_back_keeps_no_dead_leader(office: Office) -> None:
    """A lease that seems to end in a year ends in one lease at most."""
    one, two = office.candidate("one"), office.candidate("two", lease_s=0.05)
    one.claim()
    office.end_lease(at_ms=office.now_ms() + 365 * 86_400_000)
    refused = two.claim()
    assert refused.term is None
    assert refused.left_s <= 0.05
    assert eventually(lambda: two.claim().term) is not None


def test_a_leader_that_is_known_to_be_dead_is_deposed(office: Office) -> None:
    """At once, and only it."""
    one, two = office.candidate("one"), office.candidate("two")
    term = one.claim().term
    two.depose("another")
    assert two.claim().term is None
    two.depose("one")
    heir = two.claim().term
    assert term is not None
    assert heir is not None
    assert heir.fence > term.fence


def test_a_neighbour_is_dead_when_its_process_is(tmp_path: Path) -> None:
    """One beside us that has ended; not one that lives, nor one of another host or container."""
    ended = subprocess.Popen([sys.executable, "-c", ""], cwd=tmp_path)
    ended.wait(30.0)
    name = member_name("clock")
    dead = name.replace(f":{os.getpid()}:", f":{ended.pid}:")
    assert not is_dead_local_process(name)
    assert is_dead_local_process(dead)
    head, place, token = dead.rsplit(":", 2)
    assert not is_dead_local_process(f"{head}:{place[::-1]}x:{token}")
    assert not is_dead_local_process(f"{head}::{token}")
    assert not is_dead_local_process("one")


def test_a_reply_that_was_lost_is_no_second_term(office: Office) -> None:
    """The same candidate asks again, and has the term that it had been given."""
    one = office.candidate("one")
    first = one.claim().term
    same = Leadership(office.scripts, "one", lease_s=3.0)
    again = same.claim()
    assert first is not None
    assert again.term is not None
    assert again.term.fence == first.fence
