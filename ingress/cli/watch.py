"""Live views: one job with its progress bar, or all jobs. Woken by the store's events, never by a clock.

On a terminal rich redraws in place, its own timer moves the elapsed time on; in a pipe each change is a
line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from ingress.cli.render import (
    JOB_COLUMNS,
    job_rows,
    kind,
    one_line,
    rich_table,
    short_id,
    since,
    summary_line,
    why,
)
from ingress.cli.shared import explain
from ingress.dispatch import current_bridge, follow, follow_all, get_job, list_jobs
from middleware.job.states import FINAL
from ops.errors import BridgeError, JobNotFound

if TYPE_CHECKING:
    from queue import SimpleQueue

    from rich.console import Group
    from rich.table import Table

    from middleware.job.records import JobEvent, JobPage, JobRecord

_REDRAWS_PER_S = 5
#: Events within so long of the first lead to one redraw.
_BURST_S = 0.1
#: So many running jobs are told when a watch in a pipe begins.
_RUNNING_MAX = 200
#: Lines of the screen that are not jobs: summary, heading, the shell's prompt.
_CHROME_LINES = 4
#: States that a job leaves by itself, soon; scheduled and held ones may stay for days.
_ACTIVE = ("queued", "processing", "retrying")


def watch_job(part: str) -> JobRecord:
    """Show a job until it has ended.

    Args:
        part: Its id, or a unique part of it.

    Returns:
        The job as it ended.
    """
    changes = follow(part)
    record = _draw_job(changes) if sys.stdout.isatty() else _print_job(changes)
    explain(record)
    return record


def _print_job(changes: Iterator[JobRecord]) -> JobRecord:
    last = ""
    for record in changes:
        line = f"{short_id(record.job_id)}  {record.status}  {record.progress:.0f}%  {why(record)}".rstrip()
        if line != last:
            click.echo(line)
            last = line
    return record


class _JobView:
    """What rich draws for one job; drawn again and again, so that the elapsed time moves."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record

    def __rich__(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        record = self.record
        view = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, 1, None, None):
            view.add_column(no_wrap=True, ratio=ratio)
        view.add_row(
            Text(f"{short_id(record.job_id)} {kind(record)}", style="bold"),
            Text(str(record.status)),
            ProgressBar(total=100, completed=record.progress),
            Text(f"{record.progress:3.0f}%"),
            Text(since(record.started_at, record.completed_at)),
        )
        frame = Table.grid(expand=True)
        frame.add_column(no_wrap=True, overflow="ellipsis")
        frame.add_row(view)
        frame.add_row(Text(why(record), style="dim"))
        return frame


def _draw_job(changes: Iterator[JobRecord]) -> JobRecord:
    from rich.live import Live

    view = _JobView(next(changes))
    with Live(view, refresh_per_second=_REDRAWS_PER_S) as live:
        for record in changes:
            view.record = record
            live.refresh()
    return view.record


def watch_all(filters: Mapping[str, str | None], *, limit: int | None) -> None:
    """Show all jobs live: on a terminal until Ctrl-C, in a pipe until nothing is queued or running.

    Args:
        filters: ``project``, ``job_type`` and ``status`` of the jobs to show; None is any.
        limit: Jobs on the page; what fits the terminal when None.
    """
    if sys.stdout.isatty():
        _draw_all(filters, limit)
    else:
        _print_all(filters)


def _page(filters: Mapping[str, str | None], limit: int) -> JobPage:
    return list_jobs(**filters, limit=limit)


def _any_active() -> bool:
    summary = _page({}, 1).summary
    return any(summary.get(state, 0) for state in _ACTIVE)


def _newest_event() -> str:
    """Give the id of the last event, to hear all that comes after what is read next."""
    return current_bridge().follower.newest_event()


def _print_all(filters: Mapping[str, str | None]) -> None:
    since_event = _newest_event()
    if filters["status"] in {None, "processing"}:
        for record in list_jobs(**{**filters, "status": "processing"}, limit=_RUNNING_MAX).jobs:
            click.echo(_line(record.job_id, record.status, record.progress, record.progress_message))
    if _any_active():
        last: str | None = None
        for event in follow_all(after=since_event):
            if event is None:
                continue
            if _is_wanted(event, filters):
                click.echo(_line(event.job_id, event.status, event.progress, event.message))
            if last is None and event.status in FINAL and not _any_active():
                # Nothing is active any more, but the ends of other jobs may still be under way to us.
                last = _newest_event()
            if last is not None and _event_order(event.event_id) >= _event_order(last):
                break
    click.echo(summary_line(_page({}, 1).summary))


def _event_order(event_id: str) -> tuple[int, int]:
    moment_ms, _, number = event_id.partition("-")
    return int(moment_ms), int(number)


def _line(job_id: str, status: str, progress: float | None, message: str) -> str:
    done = "" if progress is None else f"{progress:.0f}%  "
    return f"{short_id(job_id)}  {status}  {done}{one_line(message)}".rstrip()


def _is_wanted(event: JobEvent, filters: Mapping[str, str | None]) -> bool:
    if filters["status"] not in {None, event.status}:
        return False
    if filters["project"] is None and filters["job_type"] is None:
        return True
    try:
        record = get_job(event.job_id)
    except JobNotFound:
        return False
    return filters["project"] in {None, record.project} and filters["job_type"] in {None, record.job_type}


class _PageView:
    """What rich draws for all jobs; drawn again and again, so that ages move."""

    def __init__(self, page: JobPage) -> None:
        self.page = page

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(
            Text(summary_line(self.page.summary), style="bold"),
            rich_table(JOB_COLUMNS, job_rows(self.page.jobs)),
        )


def _draw_all(filters: Mapping[str, str | None], limit: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    rows = max(1, console.height - _CHROME_LINES) if limit is None else limit
    since_event = _newest_event()
    view = _PageView(_page(filters, rows))
    with Live(view, console=console, refresh_per_second=_REDRAWS_PER_S) as live:
        for _ in _bursts(since_event):
            view.page = _page(filters, rows)
            live.refresh()


def _bursts(since_event: str) -> Iterator[None]:
    """Yield after each burst: events that come within ``_BURST_S`` of the first."""
    from queue import Empty, SimpleQueue
    from threading import Thread

    news: SimpleQueue[BaseException | None] = SimpleQueue()
    Thread(target=_listen, args=(news, since_event), daemon=True).start()
    while True:
        _raise_if_error(news.get())
        ends_at_s = time.monotonic() + _BURST_S
        while (left_s := ends_at_s - time.monotonic()) > 0:
            try:
                _raise_if_error(news.get(timeout=left_s))
            except Empty:
                break
        yield


def _listen(news: SimpleQueue[BaseException | None], since_event: str) -> None:
    try:
        for _ in follow_all(after=since_event):
            news.put(None)
    except BridgeError as error:
        news.put(error)


def _raise_if_error(item: BaseException | None) -> None:
    if item is not None:
        raise item
