"""Cancellation and time limits in every state: gracefully, then by force, and the answer tells which."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from ingress.dispatch import dispatch, get_job, read_output, wait_for
from ops.processes import find_marked
from tests.projects.conftest import Site, project
from tests.support import eventually

#: A command that does as it is asked, and one that does not.
POLITE = "echo ready; exec sleep 300"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def bridge(site: Site, tmp_path: Path) -> Site:
    """A bridge without a worker yet."""
    site.configure(project(tmp_path))
    return site


def _is_ready(job_id: str) -> bool:
    return [chunk.text for chunk in read_output(job_id)] == ["ready\n"]


def how(site: Site, job_id: str) -> str:
    """Cancel a job and return the answer; none of its processes may be left."""
    code, out, err = site.cli("cancel", job_id)
    assert (code, err) == (0, "")
    assert find_marked("BRIDGE_JOB_ID", job_id) == []
    assert get_job(job_id).status == "cancelled"
    return out.strip().removeprefix(f"{job_id} cancelled: ")


def test_what_has_not_started_never_does(bridge: Site) -> None:
    """Queued, scheduled, held: the answer names the state, and no worker gets the job."""
    first = bridge.add("echo 1")
    held = bridge.add("echo 2", depends_on=[first])
    scheduled = dispatch("heartbeat", {}, delay_s=600).job_id
    assert how(bridge, held) == "it was held"
    assert how(bridge, scheduled) == "it was scheduled"
    assert how(bridge, first) == "it was queued"
    with bridge.workers():
        assert wait_for(bridge.add("true"), timeout_s=10).status == "completed"
    assert [get_job(job_id).attempt for job_id in (first, held, scheduled)] == [0, 0, 0]


def test_what_runs_is_asked_first_and_then_made_to(bridge: Site) -> None:
    """SIGTERM is enough for one, not for the other; between two attempts there is nothing to stop."""
    with bridge.workers():
        polite, stubborn = bridge.add(POLITE), bridge.add(STUBBORN)
        retrying = dispatch("shell.cmd", {"argv": ["false"]}, max_retries=50).job_id
        for job_id in (polite, stubborn):
            eventually(partial(_is_ready, job_id))
        assert how(bridge, polite) == "stopped after SIGTERM"
        assert how(bridge, stubborn) == "killed, because it did not end within 0.5 s of SIGTERM"
        eventually(lambda: get_job(retrying).status == "retrying")
        assert how(bridge, retrying) == "it was retrying"
        answer = bridge.cli("cancel", stubborn, "--json").json["jobs"][0]
    assert answer["outcome"] == "cancelled"
    assert "killed" in answer["how"]
    assert "killed, because" in get_job(stubborn).reason


def test_a_time_limit_says_how_it_was_enforced(bridge: Site) -> None:
    """The attempt has failed; its error names the limit, and whether force was needed."""
    with bridge.workers():
        polite = bridge.add(POLITE, timeout_seconds=0.3)
        stubborn = bridge.add(STUBBORN, timeout_seconds=0.3)
        for job_id, word in ((polite, "stopped after SIGTERM"), (stubborn, "killed, because")):
            found = wait_for(job_id, timeout_s=10)
            assert found.status == "failed"
            assert found.error is not None
            assert "limit of 0.3 s" in found.error.message
            assert word in found.error.message
            assert find_marked("BRIDGE_JOB_ID", job_id) == []


def test_output_with_escapes_is_harmless_on_every_way(bridge: Site) -> None:
    """Control sequences in an agent's output and progress are escaped."""
    evil = r"\033[2J\033]0;owned\007\033[31mred\033[0m\r\b"
    with bridge.workers():
        job_id = bridge.add(
            f"printf '::progress 40 {evil}\\n'; printf '{evil}\\n'; printf '{evil}' >&2; exit 1"
        )
        wait_for(job_id, timeout_s=10)
    ways = (
        ("logs", job_id),
        ("jobs", job_id),
        ("jobs",),
        ("jobs", "--watch"),
        ("jobs", job_id, "--watch"),
        ("jobs", "--tree"),
        ("receipt", job_id),
        ("wait", job_id),
    )
    for arguments in ways:
        drawn = bridge.cli.on_terminal(*arguments, columns=160)[1]
        for sequence in ("\x1b[2J", "\x1b]0;", "\x07", "\x1b[31mred", "\b"):
            assert sequence not in drawn, (arguments, drawn)
    # As it is: into a pipe, as JSON, and where it is asked for.
    assert "\x1b]0;owned\x07" in bridge.cli("logs", job_id).out
    assert "\x1b]0;owned\x07" in bridge.cli.on_terminal("logs", job_id, "--raw")[1]
    assert "\x1b]0;owned\x07" in json.loads(bridge.cli("logs", job_id, "--json").out)["output"][0]["text"]
