"""Commands that show jobs: ``jobs``, ``logs``, ``receipt``."""

from __future__ import annotations

import click
import msgspec

from ingress.cli.output import OutputWriter
from ingress.cli.render import JOB_COLUMNS, job_rows, print_table, summary_line
from ingress.cli.shared import emit_json, exit_code_of, json_option, require_job_type
from ingress.dispatch import get_job, get_receipt, list_jobs, purge_jobs, read_output, resolve_id, wait_for
from middleware.job.records import JobPage, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import UsageProblem

STATES = tuple(str(state) for state in State)
#: Cannot be part of an id: there is no u in one.
PURGE = "purge"
_LIMIT = 50
_PAGE = 500


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--watch", is_flag=True, help="Follow, woken by each change: one job to its end, or all.")
@click.option("--project", metavar="P", help="Only jobs of this project.")
@click.option("--type", "job_type", metavar="T", help="Only jobs of this type.")
@click.option("--status", metavar="S", type=click.Choice(STATES), help=f"One of: {', '.join(STATES)}.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 1000), help=f"At most so many; {_LIMIT} by default."
)
@click.option("--cursor", metavar="C", help="Go on where the last page ended.")
@click.option("--all", "every", is_flag=True, help="All pages.")
@json_option
def jobs(
    *,
    job_id: str | None,
    watch: bool,
    project: str | None,
    job_type: str | None,
    status: str | None,
    limit: int | None,
    cursor: str | None,
    every: bool,
    as_json: bool,
) -> int:
    """List jobs with a summary, or show one; 'jobs purge' deletes dead letters.

    The list is newest first; with ID, all that is known of that job. With ID and --watch the exit code is
    0 if the job is completed, 1 if it failed or was cancelled. Without ID, --watch goes on until Ctrl-C,
    or in a pipe until nothing is queued or running. 'jobs purge' deletes all failed jobs for good, with
    --status those that are completed or cancelled.
    """
    filters = {"project": project, "job_type": job_type, "status": status}
    if job_id == PURGE:
        if watch or every or any(value is not None for value in (project, job_type, limit, cursor)):
            raise UsageProblem(
                "'jobs purge' takes --status and --json only.", remedy="See '3ox jobs --help'."
            )
        return _purge("failed" if status is None else status, as_json=as_json)
    if job_id is not None:
        if every or any(value is not None for value in (*filters.values(), limit, cursor)):
            raise UsageProblem("ID shows one job; filters are for the list.", remedy="Leave out one of them.")
        return _one(job_id, watch=watch, as_json=as_json)
    if watch and (as_json or every or cursor is not None):
        remedy = "Leave out --json, --all and --cursor."
        raise UsageProblem("--watch of all jobs shows one live page.", remedy=remedy)
    if every and (limit is not None or cursor is not None):
        raise UsageProblem("--all shows all pages.", remedy="Leave out --limit and --cursor.")
    if job_type is not None:
        require_job_type(job_type)
    if watch:
        from ingress.cli.watch import watch_all

        watch_all(filters, limit=limit)
        return 0
    _show_page(_pages(filters) if every else _page(filters, limit=limit, cursor=cursor), as_json=as_json)
    return 0


def _purge(status: str, *, as_json: bool) -> int:
    if State(status) not in FINAL:
        raise UsageProblem(
            f"jobs that are {status} are not purged.",
            remedy=f"Use --status with one of: {', '.join(sorted(FINAL))}; or cancel them first.",
        )
    deleted = purge_jobs(status)
    if as_json:
        emit_json({"status": status, "deleted": deleted})
    else:
        click.echo(f"{deleted} {status} job{'' if deleted == 1 else 's'} deleted.")
    return 0


def _one(part: str, *, watch: bool, as_json: bool) -> int:
    if not watch:
        record = get_job(part)
        if as_json:
            emit_json(record.to_json())
        else:
            from ingress.cli.details import print_job

            print_job(record)
        return 0
    if as_json:
        record = wait_for(part)
        emit_json(record.to_json())
    else:
        from ingress.cli.watch import watch_job

        record = watch_job(part)
    return exit_code_of(record)


def _page(filters: dict[str, str | None], *, limit: int | None, cursor: str | None) -> JobPage:
    return list_jobs(**filters, limit=_LIMIT if limit is None else limit, cursor=cursor)


def _pages(filters: dict[str, str | None]) -> JobPage:
    page = _page(filters, limit=_PAGE, cursor=None)
    records: list[JobRecord] = list(page.jobs)
    cursor = page.next
    while cursor is not None:
        following = _page(filters, limit=_PAGE, cursor=cursor)
        records += following.jobs
        cursor = following.next
    return JobPage(jobs=records, summary=page.summary, next=None)


def _show_page(page: JobPage, *, as_json: bool) -> None:
    if as_json:
        raw = [msgspec.Raw(record.to_json()) for record in page.jobs]
        emit_json({"jobs": raw, "summary": page.summary, "next": page.next})
        return
    if page.jobs:
        print_table(JOB_COLUMNS, job_rows(page.jobs))
    click.echo(summary_line(page.summary))
    if page.next is not None:
        click.echo(f"There are more: --cursor {page.next} goes on, --all shows all.")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@json_option
def logs(*, job_id: str, follow: bool, as_json: bool) -> int:
    """Show the output of a job.

    Its stdout goes to stdout, its stderr to stderr.
    """
    whole_id = resolve_id(job_id)
    chunks = read_output(whole_id, follow=follow)
    if as_json:
        emit_json({"job_id": whole_id, "output": list(chunks)})
        return 0
    writer = OutputWriter(raw=False)
    for chunk in chunks:
        writer.write(chunk)
    return 0


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def receipt(*, job_id: str, as_json: bool) -> int:
    """Show the receipt of a job.

    It says who asked for what and when, the hashes of input and result, and every move in between.
    """
    found = get_receipt(job_id)
    if as_json:
        emit_json(found)
    else:
        from ingress.cli.details import print_receipt

        print_receipt(found)
    return 0


COMMANDS = [jobs, logs, receipt]
