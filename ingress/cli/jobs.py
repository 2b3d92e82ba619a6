"""Commands that show jobs: ``jobs``, ``logs``, ``receipt``."""

from __future__ import annotations

from functools import partial

import click
import msgspec

from ingress.cli.details import print_job, print_receipt, show_proof
from ingress.cli.diff import show_diff
from ingress.cli.export import show_undelivered
from ingress.cli.shared import json_option, note_if_spooled, require_job_type
from ingress.cli.tree import show_tree
from ingress.cli.watch import watch_all, watch_job
from ingress.core.job_output import OutputWriter
from ingress.core.ledger_proofs import last_trace, verify_receipt
from ingress.core.local_user import login_name, utf8
from ingress.core.lookup import Source
from ingress.core.run_and_follow import exit_code_of
from ingress.core.spooled_jobs import SPOOLED, list_spooled
from ingress.core.terminal import emit_json, print_table
from ingress.core.text import JOB_COLUMNS, count_of, job_rows, summary_line, uncounted
from ingress.dispatch import all_jobs, current_bridge, find_job, list_jobs, purge_jobs
from middleware.job.records import JobPage, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import JobNotFound, UsageProblem, WrongState

STATES = tuple(str(state) for state in State)
#: 'jobs purge'; job ids contain no u.
PURGE = "purge"
_LIMIT = 50
_LIMIT_ALL = 1000
#: Pages that one command reads to fill a list of one source.
_SOURCE_PAGES_MAX = 50


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--watch", is_flag=True, help="Follow one job to its end, or all jobs.")
@click.option("--tree", is_flag=True, help="Show the dependency graph, of all jobs or of one.")
@click.option("--diff", is_flag=True, help="With ID: show what a task in a worktree changed.")
@click.option("--project", metavar="P", help="Only jobs of this project.")
@click.option("--type", "job_type", metavar="T", help="Only jobs of this type.")
@click.option(
    "--status",
    metavar="S",
    type=click.Choice([*STATES, SPOOLED]),
    help=f"Only jobs in this state: {', '.join(STATES)}, or spooled (on this host's disk until the store"
    " accepts them).",
)
@click.option("--source", metavar="SOURCE", help="Only jobs from this interface: cli, rest, clock, ...")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 1000),
    help=f"Maximum number of jobs; {_LIMIT} by default, {_LIMIT_ALL} with --all.",
)
@click.option("--cursor", metavar="C", help="Continue after the previous page.")
@click.option("--all", "every", is_flag=True, help="Include the job history.")
@click.option("--search", metavar="TEXT", help="With --all: only jobs that contain all these words.")
@click.option("--day", metavar="YYYY-MM-DD", help="With --all: only jobs created on this day, UTC.")
@click.option("--undelivered", is_flag=True, help="Only jobs with undelivered results.")
@json_option
def jobs(
    *,
    job_id: str | None,
    watch: bool,
    tree: bool,
    diff: bool,
    project: str | None,
    job_type: str | None,
    status: str | None,
    source: str | None,
    limit: int | None,
    cursor: str | None,
    every: bool,
    search: str | None,
    day: str | None,
    undelivered: bool,
    as_json: bool,
) -> int:
    """List jobs, or show one; 'jobs purge' deletes failed jobs.

    The list is newest first. Its summary counts the jobs of --project and --type in all states. With ID,
    shows the job in full.

    With ID and --watch, exits 0 if the job completed, 1 if it failed or was cancelled. Without ID, --watch
    ends when no job is queued, processing or retrying, and exits 1 if one failed or was cancelled meanwhile.

    'jobs purge' deletes all failed jobs from the store, with --status the completed or cancelled ones. The
    history keeps the jobs it has.
    """
    filters = {"project": project, "job_type": job_type, "status": status, "source": source}
    asked_all = True if every else None
    paging = {"--limit": limit, "--cursor": cursor, "--all": asked_all, "--search": search, "--day": day}
    narrowing = {"--project": project, "--type": job_type, "--status": status, "--source": source}
    narrowed = [name for name, value in narrowing.items() if value is not None]
    paged = [name for name, value in paging.items() if value is not None]
    besides = [name for name in paged if name != "--limit"]
    ways = {"--watch": watch, "--tree": tree, "--diff": diff, "--undelivered": undelivered}
    chosen = [name for name, given in ways.items() if given]
    if job_id == PURGE:
        _refuse("'jobs purge'", [*chosen, *paged, *(name for name in narrowed if name != "--status")])
        return _purge("failed" if status is None else status, as_json=as_json)
    if len(chosen) > 1:
        _refuse(chosen[0], chosen[1:])
    if job_id is not None:
        _refuse("ID", [*paged, *narrowed, *(["--undelivered"] * undelivered)])
        return _one(job_id, way=chosen[0] if chosen else "", as_json=as_json)
    if job_type is not None:
        require_job_type(job_type, in_history=every or search is not None or day is not None)
    if status == SPOOLED:
        _refuse("--status spooled", [*chosen, *besides])
        _show_page(_spooled_page(filters, limit), as_json=as_json)
        return 0
    if chosen:
        return _view(chosen[0], filters, narrowed, paged, besides, limit=limit, as_json=as_json)
    beyond = uncounted(search=search, day=day, source=source)
    whole = every or search is not None or day is not None
    read = partial(_whole_page, search=search, day=day) if whole else _page
    _show_page(read(filters, limit=limit, cursor=cursor), as_json=as_json, every=whole, beyond=beyond)
    return 0


def _whole_page(
    filters: dict[str, str | None],
    *,
    search: str | None,
    day: str | None,
    limit: int | None,
    cursor: str | None,
) -> JobPage:
    text = None if search is None else utf8(search, "--search")
    wanted = _LIMIT_ALL if limit is None else limit
    return all_jobs(limit=wanted, cursor=cursor, text=text, day=day, **filters)


def _view(
    way: str,
    filters: dict[str, str | None],
    narrowed: list[str],
    paged: list[str],
    besides: list[str],
    *,
    limit: int | None,
    as_json: bool,
) -> int:
    """Show jobs in another way than as a list; refuse options that do not go with it."""
    if way == "--undelivered":
        _refuse(way, [*narrowed, *besides])
        show_undelivered(limit=limit, as_json=as_json)
    elif way == "--tree":
        _refuse(way, paged)
        show_tree(filters, job_id=None, as_json=as_json)
    elif way == "--watch":
        _refuse("--watch without ID", [*besides, *(["--json"] * as_json)])
        return watch_all(filters, limit=limit)
    else:
        raise UsageProblem("--diff needs a job.", remedy="Add its ID.")
    return 0


def _refuse(what: str, options: list[str]) -> None:
    """Refuse options that cannot be combined with something."""
    if options:
        others = ", ".join(options)
        raise UsageProblem(f"{what} cannot be combined with {others}.", remedy="See '3ox jobs --help'.")


def _purge(status: str, *, as_json: bool) -> int:
    from ops.logs import configure_logging, get_logger

    if status not in FINAL:
        raise UsageProblem(
            f"{status} jobs cannot be purged.",
            remedy=f"Use --status with one of {', '.join(sorted(FINAL))}, or cancel them first.",
        )
    deleted = purge_jobs(status)
    # The log is where someone finds later when a missing job was deleted, and by whom.
    configure_logging(current_bridge().loaded, process="cli", console=False)
    get_logger(__name__).warning("jobs.purged", status=status, jobs=deleted, actor=login_name())
    if as_json:
        emit_json({"status": status, "deleted": deleted})
    else:
        click.echo(f"{count_of(deleted, f'{status} job')} deleted.")
    return 0


def _one(part: str, *, way: str, as_json: bool) -> int:
    if way == "--watch":
        return _watch_one(part, as_json=as_json)
    try:
        record = find_job(part).record()
    except JobNotFound as error:
        raise last_trace(current_bridge(), part, error) from error
    if way == "--diff":
        show_diff(record, current_bridge().loaded, as_json=as_json)
    elif way == "--tree":
        show_tree({}, job_id=record.job_id, as_json=as_json)
    elif as_json:
        emit_json(record.to_json())
    else:
        _print(record)
    return 0


def _watch_one(part: str, *, as_json: bool) -> int:
    if as_json:
        record = find_job(part).wait()
        emit_json(record.to_json())
    else:
        try:
            record = watch_job(part)
        except JobNotFound:
            # Only the history has it, so there is nothing to follow.
            record = find_job(part).record()
            _print(record)
    return exit_code_of(record)


def _print(record: JobRecord) -> None:
    print_job(record, kept=_where_kept(record))


def _where_kept(record: JobRecord) -> str:
    """Return where a job is that the store no longer has; empty for one that it has."""
    if not record.is_final or current_bridge().reader.status_of(record.job_id) is not None:
        return ""
    return "in the history; the store no longer has it (purged, or removed by retention_s or finished_max)"


def _page(filters: dict[str, str | None], *, limit: int | None, cursor: str | None) -> JobPage:
    wanted = _LIMIT if limit is None else limit
    page = list_jobs(**filters, limit=wanted, cursor=cursor)
    if filters["source"] is None:
        return page
    # The store has no index of sources, so one read may not fill the page.
    records = list(page.jobs)
    for _ in range(_SOURCE_PAGES_MAX):
        if page.next is None or len(records) >= wanted:
            break
        page = list_jobs(**filters, limit=wanted - len(records), cursor=page.next)
        records += page.jobs
    return JobPage(jobs=records, summary=page.summary, next=page.next)


def _spooled_page(filters: dict[str, str | None], limit: int | None) -> JobPage:
    """Return the jobs in the spool that match the filters; needs no store."""
    wanted = [(name, value) for name, value in filters.items() if value is not None]
    fitting = [
        record
        for record in list_spooled(current_bridge())
        if all(getattr(record, name) == value for name, value in wanted)
    ]
    return JobPage(fitting[: _LIMIT if limit is None else limit], {SPOOLED: len(fitting)})


def _show_page(page: JobPage, *, as_json: bool, every: bool = False, beyond: str = "") -> None:
    """Print a page of jobs.

    Args:
        page: The page.
        as_json: Print one JSON document.
        every: The list includes the history.
        beyond: Why the counts by state do not fit the list; see ``uncounted``.
    """
    if as_json:
        raw = [msgspec.Raw(record.to_json()) for record in page.jobs]
        emit_json({"jobs": raw, "summary": page.summary, "next": page.next})
        return
    if page.jobs:
        print_table(JOB_COLUMNS, job_rows(page.jobs))
    if SPOOLED in page.summary:
        click.echo(f"Spooled: {page.summary[SPOOLED]}")
    elif beyond:
        click.echo(f"{count_of(len(page.jobs), 'job')}, {beyond}.")
    else:
        click.echo(f"In the store: {summary_line(page.summary)}" if every else summary_line(page.summary))
    spooled = 0 if SPOOLED in page.summary else current_bridge().spooled()
    if spooled:
        click.echo(f"In the spool: {count_of(spooled, 'job')}; --status spooled lists them.")
    if page.next is not None:
        more = "'3ox export' writes all jobs" if every else "--all includes the history"
        click.echo(f"More: add --cursor {page.next}; {more}.")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Follow until the job has ended.")
@click.option("--raw", is_flag=True, help="Let the terminal obey control sequences in the output.")
@json_option
def logs(*, job_id: str, follow: bool, raw: bool, as_json: bool) -> int:
    """Show the output of a job.

    Its stdout goes to stdout, its stderr to stderr. On a terminal, control sequences are escaped; a pipe or
    file gets the output unchanged.
    """
    job = find_job(job_id)
    note_if_spooled(job)
    chunks = job.output(follow=follow)
    if as_json:
        emit_json({"job_id": job.job_id, "output": list(chunks)})
        return 0
    writer = OutputWriter(raw=raw)
    for chunk in chunks:
        writer.write(chunk)
    return 0


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--verify", "prove", is_flag=True, help="Verify it against the ledger; exits 1 if that fails.")
@json_option
def receipt(*, job_id: str, prove: bool, as_json: bool) -> int:
    """Show the receipt of a job.

    It records who asked for what and when, the hashes of input and result, and every change of state.
    """
    job = find_job(job_id)
    found = job.receipt()
    proof = None
    if prove and job.source is Source.SPOOL:
        raise WrongState(
            f"{found.job_id} is not in the ledger yet: {found.transitions[-1].reason}",
            remedy="Try again when the store has accepted it.",
        )
    if prove:
        proof = verify_receipt(current_bridge(), found.job_id)
    if as_json:
        emit_json(found if proof is None else {**msgspec.structs.asdict(found), "proof": proof})
    else:
        print_receipt(found)
        if proof is not None:
            click.echo()
            show_proof(proof)
    return 0 if proof is None or proof.ok else 1


COMMANDS = [jobs, logs, receipt]
