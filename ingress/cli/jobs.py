"""Commands that show jobs: ``jobs``, ``logs``, ``receipt``."""

from __future__ import annotations

import click
import msgspec

from ingress.cli.output import OutputWriter
from ingress.cli.shared import (
    emit_json,
    exit_code_of,
    json_option,
    login_name,
    note_if_spooled,
    require_job_type,
    utf8,
)
from ingress.core.text import JOB_COLUMNS, count_of, job_rows, print_table, summary_line
from ingress.dispatch import (
    all_jobs,
    current_bridge,
    get_job,
    get_receipt,
    list_jobs,
    purge_jobs,
    read_output,
    resolve_id,
    wait_for,
)
from middleware.job.records import JobPage, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import JobNotFound, UsageProblem, WrongState

STATES = tuple(str(state) for state in State)
#: Status of those that the store has not taken yet.
SPOOLED = "spooled"
#: Cannot be part of an id: there is no u in one.
PURGE = "purge"
_LIMIT = 50
_LIMIT_ALL = 1000
#: How many thousand jobs, two each, are looked through for those of one source.
_LOOKS_MAX = 50


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@click.option("--watch", is_flag=True, help="Follow, woken by each change: one job to its end, or all.")
@click.option("--tree", is_flag=True, help="Show what depends on what; with ID, what hangs together with it.")
@click.option("--diff", is_flag=True, help="With ID: show what a task in a worktree has changed.")
@click.option("--project", metavar="P", help="Only jobs of this project.")
@click.option("--type", "job_type", metavar="T", help="Only jobs of this type.")
@click.option(
    "--status",
    metavar="S",
    type=click.Choice([*STATES, SPOOLED]),
    help=f"One of: {', '.join(STATES)}; spooled: on this host's disk, until the store takes them.",
)
@click.option("--source", metavar="DOOR", help="Only jobs that came through it: cli, rest, clock, ...")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 1000),
    help=f"At most so many; {_LIMIT} by default, with --all {_LIMIT_ALL}.",
)
@click.option("--cursor", metavar="C", help="Go on where the last page ended.")
@click.option("--all", "every", is_flag=True, help="Those of the history too, as one list.")
@click.option("--search", metavar="TEXT", help="With --all: only jobs in which all these words stand.")
@click.option("--day", metavar="YYYY-MM-DD", help="With --all: only jobs created on this day, UTC.")
@click.option("--undelivered", is_flag=True, help="Only jobs whose results have not arrived everywhere.")
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
    """List jobs with a summary, or show one; 'jobs purge' deletes dead letters.

    The list is newest first; its summary counts the jobs of --project and --type in all states. With ID,
    all that is known of that job. With ID and --watch the exit code is 0 if the job is completed, 1 if it
    failed or was cancelled. Without ID, --watch ends when nothing is queued or running any more, with 1 if
    a job failed or was cancelled meanwhile. 'jobs purge' deletes all failed jobs from the store for good,
    with --status those that are completed or cancelled; the history keeps those that it has.
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
        require_job_type(job_type)
    if status == SPOOLED:
        _refuse("--status spooled", [*chosen, *besides])
        _show_page(_spooled_page(filters, limit), as_json=as_json)
        return 0
    if chosen:
        return _view(chosen[0], filters, narrowed, paged, besides, limit=limit, as_json=as_json)
    if every or search is not None or day is not None:
        _show_page(_whole_page(filters, search, day, limit=limit, cursor=cursor), as_json=as_json, every=True)
    else:
        _show_page(_page(filters, limit=limit, cursor=cursor), as_json=as_json)
    return 0


def _whole_page(
    filters: dict[str, str | None],
    search: str | None,
    day: str | None,
    *,
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
    """Show the jobs in another way than as a list; only what goes with that way may have been given."""
    if way == "--undelivered":
        from ingress.cli.export import show_undelivered

        _refuse(way, [*narrowed, *besides])
        show_undelivered(limit=limit, as_json=as_json)
    elif way == "--tree":
        from ingress.cli.tree import show_tree

        _refuse(way, paged)
        show_tree(filters, job_id=None, as_json=as_json)
    elif way == "--watch":
        from ingress.cli.watch import watch_all

        _refuse("--watch of all jobs", [*besides, *(["--json"] * as_json)])
        return watch_all(filters, limit=limit)
    else:
        raise UsageProblem("--diff shows the changes of one job.", remedy="Add its ID.")
    return 0


def _refuse(what: str, options: list[str]) -> None:
    """Refuse options that do not go together with something."""
    if options:
        raise UsageProblem(f"{what} does not go with {', '.join(options)}.", remedy="See '3ox jobs --help'.")


def _purge(status: str, *, as_json: bool) -> int:
    from ops.logs import configure_logging, get_logger

    if status not in FINAL:
        raise UsageProblem(
            f"jobs that are {status} are not purged.",
            remedy=f"Use --status with one of: {', '.join(sorted(FINAL))}; or cancel them first.",
        )
    deleted = purge_jobs(status)
    # Whoever misses one of them later finds here when it went, and by whom.
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
        record = get_job(part)
    except JobNotFound as error:
        from ingress.core.ledger_proofs import last_trace

        raise last_trace(current_bridge(), part, error) from error
    if way == "--diff":
        from ingress.cli.diff import show_diff

        show_diff(record, current_bridge().loaded, as_json=as_json)
    elif way == "--tree":
        from ingress.cli.tree import show_tree

        show_tree({}, job_id=record.job_id, as_json=as_json)
    elif as_json:
        emit_json(record.to_json())
    else:
        _print(record)
    return 0


def _watch_one(part: str, *, as_json: bool) -> int:
    if as_json:
        record = wait_for(part)
        emit_json(record.to_json())
    else:
        from ingress.cli.watch import watch_job

        try:
            record = watch_job(part)
        except JobNotFound:
            # Of a job of the history nothing can be followed any more.
            record = get_job(part)
            _print(record)
    return exit_code_of(record)


def _print(record: JobRecord) -> None:
    from ingress.cli.details import print_job

    print_job(record, kept=_where_kept(record))


def _where_kept(record: JobRecord) -> str:
    """Say where a job is kept that the store has let go of; empty for one that it has."""
    if not record.is_final or current_bridge().reader.status_of(record.job_id) is not None:
        return ""
    return "not in the store any more (purged, or beyond retention_s or finished_max); this is the history's"


def _page(filters: dict[str, str | None], *, limit: int | None, cursor: str | None) -> JobPage:
    wanted = _LIMIT if limit is None else limit
    page = list_jobs(**filters, limit=wanted, cursor=cursor)
    if filters["source"] is None:
        return page
    # There is no index of sources: one look may not fill the page.
    records = list(page.jobs)
    for _ in range(_LOOKS_MAX):
        if page.next is None or len(records) >= wanted:
            break
        page = list_jobs(**filters, limit=wanted - len(records), cursor=page.next)
        records += page.jobs
    return JobPage(jobs=records, summary=page.summary, next=page.next)


def _spooled_page(filters: dict[str, str | None], limit: int | None) -> JobPage:
    """Give the jobs of the spool, as far as they fit; needs no store."""
    from ingress.core.spooled_jobs import list_spooled

    wanted = [(name, value) for name, value in filters.items() if value is not None]
    fitting = [
        record
        for record in list_spooled(current_bridge())
        if all(getattr(record, name) == value for name, value in wanted)
    ]
    return JobPage(fitting[: _LIMIT if limit is None else limit], {SPOOLED: len(fitting)})


def _show_page(page: JobPage, *, as_json: bool, every: bool = False) -> None:
    if as_json:
        raw = [msgspec.Raw(record.to_json()) for record in page.jobs]
        emit_json({"jobs": raw, "summary": page.summary, "next": page.next})
        return
    if page.jobs:
        print_table(JOB_COLUMNS, job_rows(page.jobs))
    click.echo(f"Spooled: {page.summary[SPOOLED]}" if SPOOLED in page.summary else summary_line(page.summary))
    spooled = 0 if SPOOLED in page.summary else current_bridge().spooled()
    if spooled:
        click.echo(f"Not in the store yet: {count_of(spooled, 'job')}; --status spooled lists them.")
    if page.next is not None:
        more = "'3ox export' writes all" if every else "--all shows more, those of the history too"
        click.echo(f"There are more: --cursor {page.next} goes on, {more}.")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option(
    "--raw", is_flag=True, help="Let a terminal obey the control sequences in it: colours, and worse."
)
@json_option
def logs(*, job_id: str, follow: bool, raw: bool, as_json: bool) -> int:
    """Show the output of a job.

    Its stdout goes to stdout, its stderr to stderr. On a terminal, control sequences are shown and not
    obeyed; a pipe or file gets everything as it is.
    """
    whole_id = resolve_id(job_id)
    note_if_spooled(whole_id)
    chunks = read_output(whole_id, follow=follow)
    if as_json:
        emit_json({"job_id": whole_id, "output": list(chunks)})
        return 0
    writer = OutputWriter(raw=raw)
    for chunk in chunks:
        writer.write(chunk)
    return 0


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--verify", "prove", is_flag=True, help="Prove it by the ledger; exits 1 if it is not proven.")
@json_option
def receipt(*, job_id: str, prove: bool, as_json: bool) -> int:
    """Show the receipt of a job.

    It says who asked for what and when, the hashes of input and result, and every move in between.
    """
    found = get_receipt(job_id)
    proof = None
    if prove and found.status == SPOOLED:
        raise WrongState(
            f"{found.job_id} has no proof yet: {found.transitions[-1].reason}",
            remedy="Ask again when the store has taken it.",
        )
    if prove:
        from ingress.core.ledger_proofs import verify_receipt

        proof = verify_receipt(current_bridge(), found.job_id)
    if as_json:
        emit_json(found if proof is None else {**msgspec.structs.asdict(found), "proof": proof})
    else:
        from ingress.cli.details import print_receipt

        print_receipt(found)
        if proof is not None:
            from ingress.cli.verify import show_proof

            click.echo()
            show_proof(proof)
    return 0 if proof is None or proof.ok else 1


COMMANDS = [jobs, logs, receipt]
