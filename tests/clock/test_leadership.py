"""Leader election and fencing tokens, on a real store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ingress.clock.serve import is_dead_local_process, member_name
from middleware.broker.leadership import Leadership
from tests.clock.conftest import Election
from tests.support import eventually


def test_one_leads_and_stays_in_office(election: Election) -> None:
    """The holder renews its lease; the others learn who it is and for how long."""
    one, two = election.candidate("one"), election.candidate("two")
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


def test_the_number_grows_with_each_new_leader(election: Election) -> None:
    """After a lease has ended, was released, or was lost by its own holder."""
    one, two = election.candidate("one", lease_s=0.05), election.candidate("two")
    fences = [election.fence_of(one)]
    term = eventually(lambda: two.claim().term)
    assert term is not None
    assert one.term is None, "its own lease has ended by its own clock, too"
    fences.append(term.fence)
    two.release()
    fences.append(election.fence_of(one))
    election.end_lease()
    fences.append(election.fence_of(one))
    assert fences == sorted(set(fences))


def test_a_former_leader_writes_nothing(election: Election) -> None:
    """The token of a former leader is not the latest, so its writes are refused."""
    one, two = election.candidate("one"), election.candidate("two")
    old = one.claim().term
    assert old is not None
    assert one.note(old, "schedules", {"a": "1"})
    election.end_lease()
    new = two.claim().term
    assert new is not None
    assert not one.note(old, "schedules", {"a": "old"})
    assert not one.forget(old, "schedules", ["a"])
    assert two.note(new, "schedules", {"a": "2"})
    assert election.read("schedules") == {"a": "2"}
    two.release()
    assert not two.note(new, "schedules", {"a": "late"}), "after it has given up the lease"
    assert election.read("schedules") == {"a": "2"}


def test_only_the_holder_gives_up_the_lease(election: Election) -> None:
    """A former leader does not end the term of the next one."""
    one, two = election.candidate("one"), election.candidate("two")
    one.claim()
    election.end_lease()
    term = two.claim().term
    one.release()
    again = two.claim()
    assert term is not None
    assert again.term is not None
    assert again.term.fence == term.fence


def test_a_store_whose_clock_was_set_back_keeps_no_dead_leader(election: Election) -> None:
    """A lease that seems to last a year lasts one lease at most."""
    one, two = election.candidate("one"), election.candidate("two", lease_s=0.05)
    one.claim()
    election.end_lease(at_ms=election.now_ms() + 365 * 86_400_000)
    refused = two.claim()
    assert refused.term is None
    assert refused.left_s <= 0.05
    assert eventually(lambda: two.claim().term) is not None


def test_a_leader_that_is_known_to_be_dead_is_deposed(election: Election) -> None:
    """Immediately, and only that leader."""
    one, two = election.candidate("one"), election.candidate("two")
    term = one.claim().term
    two.depose("another")
    assert two.claim().term is None
    two.depose("one")
    heir = two.claim().term
    assert term is not None
    assert heir is not None
    assert heir.fence > term.fence


def test_a_neighbour_is_dead_when_its_process_is(tmp_path: Path) -> None:
    """A local process that has ended; not a running one, nor one of another host or container."""
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


def test_a_lost_reply_does_not_start_a_second_term(election: Election) -> None:
    """The candidate claims again and gets the term that it already has."""
    one = election.candidate("one")
    first = one.claim().term
    same = Leadership(election.scripts, "one", lease_s=3.0)
    again = same.claim()
    assert first is not None
    assert again.term is not None
    assert again.term.fence == first.fence
