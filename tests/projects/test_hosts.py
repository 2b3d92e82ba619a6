"""Several hosts: output and changes of a worker on another host are visible here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, get_job, read_output, wait_for
from ops.settings.load import load_settings
from tests.projects.conftest import SETTINGS, Site, git, project
from tests.support import eventually
from tests.workers import Worker, running_worker, sweep


@pytest.fixture
def elsewhere(site: Site, repository: Path, tmp_path: Path) -> Iterator[tuple[Site, Worker]]:
    """A host without workers, and a worker on a host that shares only the store with it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    site.configure(project(here, "demo", "worktree = true"))
    environ = {**site.environ, "BRIDGE_HOME": str(there)}
    there.mkdir()
    (there / "3ox.toml").write_text(SETTINGS + project(repository, "demo", "worktree = true"))
    bridge = Bridge(load_settings(environ=environ))
    bridge.loaded.workspace.create()
    with running_worker(bridge, environ) as worker:
        yield Site(environ), worker
    sweep(environ)


def test_output_comes_live_from_a_worker_on_another_host(
    site: Site, elsewhere: tuple[Site, Worker], tmp_path: Path
) -> None:
    """``logs -f`` shows each line as it is written, and ends with the job."""
    _, worker = elsewhere
    gates = [tmp_path / f"gate-{number}" for number in range(3)]
    steps = "; ".join(
        f"echo line {number}; while [ ! -e {gate} ]; do sleep 0.01; done" for number, gate in enumerate(gates)
    )
    job_id = site.add(steps)
    follower = site.cli.start("logs", job_id, "-f")
    assert follower.stdout is not None
    for number, gate in enumerate(gates):
        assert follower.stdout.readline() == f"line {number}\n"
        assert get_job(job_id).status == "processing"
        gate.touch()
    out, err = follower.communicate(timeout=10)
    assert (follower.returncode, out, err) == (0, "", "")
    assert get_job(job_id).worker_id == worker.worker_id


def test_the_diff_is_shown_wherever_the_files_are(
    site: Site, elsewhere: tuple[Site, Worker], repository: Path, tmp_path: Path
) -> None:
    """From the worktree while it exists, then from the branch, and on another host from the result."""
    there, _ = elsewhere
    gate = tmp_path / "gate"
    job_id = site.add(
        f"echo more >> a.txt; echo ready; while [ ! -e {gate} ]; do sleep 0.01; done; echo 2 > c.txt"
    )
    eventually(lambda: "ready" in "".join(chunk.text for chunk in read_output(job_id)))

    def diff(of: Site) -> tuple[str, str]:
        found = of.cli("jobs", job_id, "--diff", "--json").json
        return found["source"], found["diff"]

    source, live = diff(there)
    assert source == "worktree"
    assert "+more" in live
    assert site.cli("jobs", job_id, "--diff").code == 2
    gate.touch()
    wait_for(job_id, timeout_s=10)
    source, final = diff(there)
    assert source == "branch"
    assert "+2" in final
    assert diff(site) == ("result", final)
    git(repository, "branch", "-D", f"3ox/{job_id}")
    git(repository, "reflog", "expire", "--expire=now", "--all")
    git(repository, "gc", "--quiet", "--prune=now")
    assert diff(there) == ("result", final)
    assert site.cli("jobs", job_id, "--diff").out == final
    text = site.cli("jobs", job_id).out
    assert "2 files, +2 -0; --diff shows them; in 3ox/" in text
    assert "+more" not in text


def test_a_diff_is_harmless_on_a_terminal(site: Site, elsewhere: tuple[Site, Worker]) -> None:
    """Control sequences in the files are escaped; the lines are coloured."""
    job_id = site.add(r"printf '\033]0;owned\007\n' > evil; exit 1")
    wait_for(job_id, timeout_s=10)
    for one in (site, elsewhere[0]):
        drawn = one.cli.on_terminal("jobs", job_id, "--diff")[1]
        assert "+\\x1b]0;owned\\x07" in drawn
        assert "\x1b]0;" not in drawn


def test_a_worker_that_dies_in_a_task_leaves_a_clean_start(
    site: Site, elsewhere: tuple[Site, Worker], repository: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of a task: the second attempt sees nothing of the first."""
    there, worker = elsewhere
    gate = tmp_path / "gate"
    job_id = site.add(
        f"ls > seen; echo dirt > dirt; git add .; echo ready; while [ ! -e {gate} ]; do sleep 0.01; done"
    )
    eventually(lambda: "ready" in "".join(chunk.text for chunk in read_output(job_id)))
    with running_worker(site.bridge, there.environ, name="second"):
        worker.kill()
        eventually(lambda: get_job(job_id).attempt == 2, 15.0)
        gate.touch()
        done = wait_for(job_id, timeout_s=15)
    assert (done.status, done.crashes) == ("completed", 1)
    branch = done.result["changes"]["branch"]
    assert git(repository, "show", f"{branch}:seen").splitlines() == ["a.txt", "seen", "sub"]
    assert git(repository, "log", "--format=%h", f"main..{branch}").count("\n") == 0
