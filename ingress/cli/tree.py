"""The dependency graph: ``jobs --tree``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import click
import msgspec

from ingress.core.terminal import emit_json, note, print_table
from ingress.core.text import kind, short_id, what, why
from ingress.dispatch import current_bridge, list_jobs
from middleware.job.records import JobRecord

#: How many of the newest jobs are read; a job is always newer than the jobs it depends on.
JOBS_MAX = 1000
#: How many older jobs, on which those depend, are added.
_OLDER_MAX = 500
_COLUMNS = ("ID", "JOB", "STATE", "WHAT", "REASON")


class Graph:
    """Jobs and their dependencies.

    Args:
        records: The jobs.
    """

    def __init__(self, records: Iterable[JobRecord]) -> None:
        self.jobs = {record.job_id: record for record in sorted(records, key=lambda item: item.job_id)}
        self.children: dict[str, list[str]] = {job_id: [] for job_id in self.jobs}
        for job_id, record in self.jobs.items():
            for parent in dict.fromkeys(record.depends_on):
                if parent in self.jobs:
                    self.children[parent].append(job_id)

    def parents(self, job_id: str) -> list[str]:
        """Return the known jobs that the job depends on."""
        return [parent for parent in dict.fromkeys(self.jobs[job_id].depends_on) if parent in self.jobs]

    def around(self, job_id: str) -> Graph:
        """Return the connected part of the graph that contains a job."""
        found, todo = {job_id}, [job_id]
        while todo:
            here = todo.pop()
            new = {*self.children[here], *self.parents(here)} - found
            found |= new
            todo += new
        return Graph(self.jobs[item] for item in found)

    def lines(self) -> Iterator[tuple[str, JobRecord, bool]]:
        """Yield the branches drawn before a job, the job, and whether the job is shown in full elsewhere.

        The newest graph comes first; dependencies come before the jobs that depend on them. A job with
        several dependencies is shown in full below the last of them.
        """
        seen: set[str] = set()
        left = {job_id: len(self.parents(job_id)) for job_id in self.jobs}
        for root in reversed([job_id for job_id, count in left.items() if count == 0]):
            todo = [(root, "", "")]
            while todo:
                job_id, lead, mark = todo.pop()
                left[job_id] -= 1
                elsewhere = job_id in seen or left[job_id] > 0
                yield lead + mark, self.jobs[job_id], elsewhere
                if elsewhere:
                    continue
                seen.add(job_id)
                below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[mark]
                children = self.children[job_id]
                marks = ["├─ "] * (len(children) - 1) + ["└─ "]
                todo += [(child, below, how) for child, how in zip(children, marks, strict=False)][::-1]


def read_graph(filters: Mapping[str, str | None]) -> tuple[Graph, bool]:
    """Return the graph of the newest jobs that match, and whether there are more jobs than were read."""
    page = list_jobs(**filters, limit=JOBS_MAX)
    found = {record.job_id: record for record in page.jobs}
    older = 0
    wanted = _missing(found, page.jobs)
    while wanted and older < _OLDER_MAX:
        batch = current_bridge().reader.records(sorted(wanted)[: _OLDER_MAX - older])
        found |= {record.job_id: record for record in batch}
        older += len(wanted)
        wanted = _missing(found, batch)
    return Graph(found.values()), page.next is not None or bool(wanted)


def _missing(found: Mapping[str, JobRecord], records: Iterable[JobRecord]) -> set[str]:
    return {parent for record in records for parent in record.depends_on} - found.keys()


def show_tree(filters: Mapping[str, str | None], *, job_id: str | None, as_json: bool) -> None:
    """Print the graph of the newest jobs, or the connected part that contains one job.

    Args:
        filters: As for the list.
        job_id: Whole id of that job.
        as_json: Print one document: the jobs, and pairs of ids, of which the second depends on the first.
    """
    graph, more = read_graph(filters)
    if job_id is not None:
        if job_id not in graph.jobs:
            graph = Graph([*graph.jobs.values(), *current_bridge().reader.records([job_id])])
        graph = graph.around(job_id)
    if as_json:
        raw = [msgspec.Raw(record.to_json()) for record in graph.jobs.values()]
        edges = [[parent, child] for parent, below in graph.children.items() for child in below]
        emit_json({"jobs": raw, "edges": edges})
    elif graph.jobs:
        print_table(_COLUMNS, list(_rows(graph)))
    else:
        click.echo("There are no jobs.")
    if more and job_id is None:
        note(f"only the newest {JOBS_MAX} jobs are shown.")


def _rows(graph: Graph) -> Iterator[tuple[str, ...]]:
    for lead, record, elsewhere in graph.lines():
        name = lead + short_id(record.job_id)
        if elsewhere:
            yield (name, "", "", "", "(shown below)")
        else:
            yield (name, kind(record), str(record.status), what(record), why(record))
