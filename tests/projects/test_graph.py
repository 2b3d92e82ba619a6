"""Tasks with dependencies: order, a crash in between, failure, no cycles."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ingress.dispatch import cancel, dispatch, dispatch_many, get_job, retry, wait_for
from middleware.job.ids import new_job_id
from middleware.job.schema import make_job
from ops.errors import InvalidJob
from tests.projects.conftest import Site, project
from tests.support import eventually


@pytest.fixture
def desk(site: Site, tmp_path: Path) -> Path:
    """A directory in which the project ``demo`` works, on a bridge without a worker yet."""
    site.configure(project(tmp_path))
    return tmp_path


def test_a_diamond_with_a_crash_in_the_middle_runs_in_order(site: Site, desk: Path) -> None:
    """A, then B and C, then D, though the worker that runs B and C is killed in between."""
    journal = desk / "journal"

    def task(name: str, wait: bool = False) -> str:
        hold = "while [ ! -e go ]; do sleep 0.02; done; " if wait else ""
        return f"echo begin-{name} >> {journal}; {hold}echo end-{name} >> {journal}"

    with site.workers(2) as workers:
        a = site.add(task("A"))
        b, c = (site.add(task(name, wait=True), depends_on=[a]) for name in "BC")
        d = site.add(task("D"), depends_on=[b, c])
        eventually(lambda: {"begin-B", "begin-C"} <= set(_lines(journal)))
        assert get_job(d).status == "held"
        holders = {get_job(job_id).worker_id for job_id in (b, c)}
        for worker in workers:
            if worker.worker_id in holders:
                worker.kill()
        eventually(lambda: get_job(b).attempt == get_job(c).attempt == 2, 20.0)
        assert get_job(d).status == "held"
        (desk / "go").touch()
        done = wait_for(d, timeout_s=20)
    records = {name: get_job(job_id) for name, job_id in zip("ABCD", (a, b, c, d), strict=True)}
    assert {record.status for record in records.values()} == {"completed"}
    assert (records["B"].crashes, records["C"].crashes) == (1, 1)
    lines = _lines(journal)
    assert lines.index("end-A") < min(lines.index("begin-B"), lines.index("begin-C"))
    assert lines.index("begin-D") > max(lines.index("end-B"), lines.index("end-C"))
    assert [lines.count(f"end-{name}") for name in "ABCD"] == [1, 1, 1, 1]
    assert done.started_at is not None
    assert done.started_at >= max(str(records[name].completed_at) for name in "BC")


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


#: What ``--if-failed`` says, and what becomes of the job then.
CHOICES = {"": "cancelled", "skip": "cancelled", "fail": "failed", "run": "completed"}


def test_what_becomes_of_a_dependent_is_a_choice(site: Site, desk: Path) -> None:
    """When a dependency fails or is cancelled: skipped, failed or run anyway."""
    with site.workers(threads=8):
        for bad in ("failed", "cancelled"):
            go = desk / f"go-{bad}"
            first = site.add(f"while [ ! -e {go} ]; do sleep 0.02; done; exit 1")
            eventually(partial(_runs, first))
            seconds = {choice: _run_after(site, first, choice) for choice in CHOICES}
            thirds = {choice: site.add("true", depends_on=[job_id]) for choice, job_id in seconds.items()}
            if bad == "cancelled":
                cancel(first)
            else:
                go.touch()
            for choice, becomes in CHOICES.items():
                found = wait_for(seconds[choice], timeout_s=15)
                assert found.status == becomes, (bad, choice)
                assert becomes == "completed" or first in found.reason
                # And so on, down the graph: the third one left the choice to the default.
                last = wait_for(thirds[choice], timeout_s=15)
                assert last.status == ("completed" if becomes == "completed" else "cancelled"), (bad, choice)


def _runs(job_id: str) -> bool:
    return get_job(job_id).status == "processing"


def _run_after(site: Site, first: str, choice: str) -> str:
    option = ("--if-failed", choice) if choice else ()
    return site.cli("run", "demo", "true", "--after", first, *option).out.strip().rpartition(":")[2]


def test_a_skipped_task_that_is_retried_waits_for_the_one_before(site: Site, desk: Path) -> None:
    """Retried together, both run, in order."""
    with site.workers():
        first = site.add("test -e go && sleep 0.1 && echo first >> order")
        second = site.add("echo second >> order", depends_on=[first])
        assert wait_for(second, timeout_s=15).status == "cancelled"
        (desk / "go").touch()
        retry(first)
        retry(second)
        assert wait_for(second, timeout_s=15).status == "completed"
    assert _lines(desk / "order") == ["first", "second"]


@pytest.mark.usefixtures("desk")
def test_cycles_are_refused(site: Site) -> None:
    """A job cannot depend on itself or on a later one, so there are no cycles."""
    own = new_job_id()
    with pytest.raises(InvalidJob, match="depends on"):
        site.add("true", job_id=own, depends_on=[own])
    a, b = new_job_id(), new_job_id()
    jobs = [
        make_job("task.custom", {"task": "x"}, project="demo", job_id=one, depends_on=[other])
        for one, other in ((a, b), (b, a))
    ]
    with pytest.raises(InvalidJob, match="depends on"):
        dispatch_many(jobs)
    assert site.cli("jobs", "--json").json["jobs"] == []


@pytest.mark.usefixtures("desk")
def test_if_failed_goes_with_after(site: Site) -> None:
    """Without --after it is wrong use."""
    code, out, err = site.cli("run", "demo", "x", "--if-failed", "run")
    assert (code, out) == (2, "")
    assert "--after" in err


@pytest.mark.usefixtures("desk")
def test_run_after_one_that_has_failed_already(site: Site) -> None:
    """It is refused, or runs at once with ``run``."""
    first = dispatch("heartbeat", {}).job_id
    cancel(first)
    refused = site.cli("run", "demo", "x", "--after", first)
    assert refused.code == 2
    assert "already cancelled" in refused.err
    out = site.cli("run", "demo", "x", "--after", first, "--if-failed", "run").out
    assert get_job(out.strip().rpartition(":")[2]).status == "queued"
