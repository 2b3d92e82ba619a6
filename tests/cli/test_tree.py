"""``jobs --tree``: the dependency graph."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingress.cli.tree import Graph
from middleware.job.records import JobRecord
from tests.cli.support import Cli


def queue(cli: Cli, task: str, *after: str) -> str:
    """Submit a task and return its job id."""
    options = [word for job_id in after for word in ("--after", job_id)]
    return cli("run", "demo", task, *options).out.strip().rpartition(":")[2]


def diamond(cli: Cli) -> list[str]:
    """Submit A, then B and C, then D."""
    a = queue(cli, "task A")
    b, c = queue(cli, "task B", a), queue(cli, "task C", a)
    return [a, b, c, queue(cli, "task D", b, c)]


def test_the_tree_shows_what_comes_after_what(quiet: Cli) -> None:
    """A diamond: a job with two dependencies is shown in full under the last, by name under the other."""
    a, b, c, d = (job_id[-8:] for job_id in diamond(quiet))
    lines = [line.rstrip() for line in quiet("jobs", "--tree").out.splitlines()]
    drawn = [
        (line[: line.index("task.custom")] if "task.custom" in line else line).rstrip() for line in lines[1:]
    ]
    assert drawn == [
        a,
        f"├─ {b}",
        f"│  └─ {d}" + drawn[2].removeprefix(f"│  └─ {d}"),
        f"└─ {c}",
        f"   └─ {d}",
    ]
    assert drawn[2].endswith("(shown below)")
    assert "held" in lines[5]
    assert "waiting for 2 other jobs to complete" in lines[5]
    assert "queued" in lines[1]


def test_with_an_id_only_what_hangs_together_with_it(quiet: Cli) -> None:
    """The connected graph of the job, and nothing of other graphs."""
    ids = diamond(quiet)
    alone = queue(quiet, "alone")
    found = quiet("jobs", ids[2], "--tree", "--json").json
    assert {job["job_id"] for job in found["jobs"]} == set(ids)
    a, b, c, d = ids
    assert sorted(found["edges"]) == sorted([[a, b], [a, c], [b, d], [c, d]])
    assert quiet("jobs", alone, "--tree").out.count("task.custom/") == 1
    assert quiet("jobs", "--tree").out.count("task.custom/") == 5


def test_filters_keep_what_the_shown_jobs_depend_on(quiet: Cli) -> None:
    """A dependency in another project is shown, too."""
    first = quiet("run", "website", "first").out.strip().rpartition(":")[2]
    second = queue(quiet, "second", first)
    out = quiet("jobs", "--tree", "--project", "demo").out
    assert first[-8:] in out
    assert f"└─ {second[-8:]}" in out


def test_an_empty_tree_and_wrong_use(quiet: Cli) -> None:
    """Without jobs that is reported; options that cannot be combined are refused."""
    assert quiet("jobs", "--tree").out == "There are no jobs.\n"
    for options in (("--tree", "--watch"), ("--tree", "--limit", "3"), ("--diff",), ("--tree", "--diff")):
        code, out, err = quiet("jobs", *options)
        assert (code, out, err.count("\n")) == (2, "", 1), options


def test_a_job_without_a_worktree_has_no_diff(quiet: Cli) -> None:
    """The error names the remedy."""
    code, out, err = quiet("jobs", queue(quiet, "x"), "--diff")
    assert (code, out) == (2, "")
    assert "worktree = true" in err


@given(st.lists(st.sets(st.integers(min_value=0, max_value=11), max_size=4), min_size=1, max_size=12))
def test_every_job_stands_in_full_exactly_once(depends: list[set[int]]) -> None:
    """In any graph, each job is shown in full once, and below each of its dependencies."""
    names = [f"{number:020d}" for number in range(len(depends))]
    records = [
        _record(names[at], [names[of] for of in sorted(of for of in ofs if of < at)])
        for at, ofs in enumerate(depends)
    ]
    shown = [(record.job_id, again) for _, record, again in Graph(records).lines()]
    assert sorted(job_id for job_id, again in shown if not again) == names
    for record in records:
        assert sum(job_id == record.job_id for job_id, _ in shown) == max(1, len(record.depends_on))


def _record(job_id: str, depends_on: list[str]) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        trace_id=job_id,
        job_type="heartbeat",
        status="held",
        source="test",
        actor="",
        project=None,
        session_id=None,
        priority=5,
        depends_on=depends_on,
    )
