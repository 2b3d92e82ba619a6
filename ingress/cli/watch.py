"""Live views of one job or of all jobs, updated by the store's events.

On a terminal rich redraws in place, and its timer updates the elapsed times; in a pipe each change is a line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from ingress.core.run_and_follow import explain
from ingress.core.terminal import STATE_STYLES
from ingress.core.text import kind, one_line, percent, short_id, since, summary_line, what, why
from ingress.dispatch import current_bridge, find_job, follow_all, get_job, list_jobs
from middleware.job.records import JobEvent, JobPage, JobRecord
from middleware.job.states import FINAL, State
from ops.errors import BridgeError, JobNotFound

if TYPE_CHECKING:
    from queue import SimpleQueue

    from rich.console import Console, ConsoleOptions, Group
    from rich.table import Table
    from rich.text import Text


_REDRAWS_PER_S = 5
#: Shortest time between two redraws, in seconds; a change shows within 50 ms.
_REDRAW_MIN_S = 0.03
#: For how many jobs it is remembered whether they match the filters.
_REMEMBERED_MAX = 5_000
#: How many running jobs are printed when a watch in a pipe begins.
_RUNNING_MAX = 200
#: Lines of the screen for summary, heading and the shell's prompt.
_OTHER_LINES = 4
#: States that a job leaves by itself soon; scheduled and held jobs may stay for days.
_ACTIVE = ("queued", "processing", "retrying")


def watch_job(part: str) -> JobRecord:
    """Show a job until it has ended, and return it.

    Args:
        part: The job's id, or a unique part of it.
    """
    changes = find_job(part).follow()
    record = _draw_job(changes) if sys.stdout.isatty() else _print_job(changes)
    explain(record)
    return record


def _print_job(changes: Iterator[JobRecord]) -> JobRecord:
    last = ""
    for record in changes:
        line = f"{short_id(record.job_id)}  {record.status}  {percent(record)}%  {why(record)}".rstrip()
        if line != last:
            click.echo(line)
            last = line
    return record


class ProgressBar:
    """A progress bar over the available width, full for a completed job only; readable without colours.

    Args:
        record: The job.
    """

    def __init__(self, record: JobRecord) -> None:
        self.percent = percent(record)
        self.style = "red" if record.status in {State.FAILED, State.CANCELLED} else "green"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Draw the bar."""
        from rich.text import Text

        del console
        width = options.max_width
        full = width if self.percent == 100 else min(width - 1, round(width * self.percent / 100))  # noqa: PLR2004
        yield Text.assemble(("━" * full, self.style), ("─" * (width - full), "dim"))


class _JobView:
    """What rich draws for one job; it redraws on a timer for the elapsed time."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        record = self.record
        view = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, 1, None, None):
            view.add_column(no_wrap=True, ratio=ratio)
        view.add_row(
            Text(f"{short_id(record.job_id)} {kind(record)}", style="bold"),
            Text(str(record.status)),
            ProgressBar(record),
            Text(f"{percent(record):3}%"),
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


def watch_all(filters: Mapping[str, str | None], *, limit: int | None) -> int:
    """Show all jobs live, until none of them is queued, processing or retrying; return the exit code.

    Args:
        filters: ``project``, ``job_type``, ``status`` and ``source`` of the jobs to show; None for any.
        limit: Jobs on the page; None for as many as the terminal shows.

    Returns:
        0, or 1 if one of them failed or was cancelled meanwhile.
    """
    watch = _JobsWatch(filters)
    if sys.stdout.isatty():
        _draw_all(watch, limit)
    else:
        _print_all(watch)
    return 1 if watch.failed else 0


class _JobsWatch:
    """The jobs that are watched.

    Attributes:
        failed: Whether a matching job failed or was cancelled meanwhile.
        since_event: The last event before the watch began.
    """

    def __init__(self, filters: Mapping[str, str | None]) -> None:
        self.filters = filters
        self.failed = False
        self._matches: dict[str, bool] = {}
        self.since_event = newest_event()

    def takes(self, event: JobEvent) -> bool:
        """Return whether an event is of a matching job; note in ``failed`` if it did not complete."""
        bad_end = event.status in FINAL and event.status != State.COMPLETED
        if self.filters["status"] not in {None, event.status} and not bad_end:
            return False
        if not self._fits(event.job_id):
            return False
        self.failed = self.failed or bad_end
        return self.filters["status"] in {None, event.status}

    def _fits(self, job_id: str) -> bool:
        if all(self.filters[name] is None for name in ("project", "job_type", "source")):
            return True
        if job_id not in self._matches:
            if len(self._matches) >= _REMEMBERED_MAX:
                self._matches.clear()
            self._matches[job_id] = self._look(job_id)
        return self._matches[job_id]

    def _look(self, job_id: str) -> bool:
        try:
            record = get_job(job_id)
        except JobNotFound:
            return False
        known = {"project": record.project, "job_type": record.job_type, "source": record.source}
        return all(self.filters[name] in {None, value} for name, value in known.items())

    def page(self, limit: int) -> JobPage:
        """Return the jobs to show: running ones first, longest first, then the newest others."""
        newest = list_jobs(**self.filters, limit=limit)
        if self.filters["status"] is not None or not newest.summary[State.PROCESSING]:
            return newest
        running = list_jobs(**{**self.filters, "status": State.PROCESSING}, limit=limit).jobs
        running.sort(key=lambda record: (record.started_at or "", record.job_id))
        shown = {record.job_id for record in running}
        others = [record for record in newest.jobs if record.job_id not in shown]
        return JobPage([*running, *others][:limit], newest.summary)

    def summary(self) -> dict[str, int]:
        """Count the jobs in each state."""
        return list_jobs(**self.filters, limit=1).summary

    def any_active(self) -> bool:
        """Return whether a job is in a state that it leaves by itself soon."""
        return is_active(self.summary())


def is_active(summary: Mapping[str, int]) -> bool:
    """Return whether there are jobs in a state that they leave by themselves soon."""
    return any(summary.get(state, 0) for state in _ACTIVE)


def newest_event() -> str:
    """Return the id of the latest event."""
    return current_bridge().follower.newest_event()


def _print_all(watch: _JobsWatch) -> None:
    if watch.filters["status"] in {None, State.PROCESSING}:
        for record in list_jobs(**{**watch.filters, "status": State.PROCESSING}, limit=_RUNNING_MAX).jobs:
            click.echo(_line(record, record.progress_message))
    if watch.any_active():
        last: str | None = None
        for event in follow_all(after=watch.since_event):
            if event is None:
                continue
            if watch.takes(event):
                click.echo(_line(event, event.message))
            if last is None and event.status in FINAL and not watch.any_active():
                # No job is active, but events of other jobs may still be on their way.
                last = newest_event()
            if last is not None and _event_order(event.event_id) >= _event_order(last):
                break
    click.echo(summary_line(watch.summary()))


def _event_order(event_id: str) -> tuple[int, int]:
    moment_ms, _, number = event_id.partition("-")
    return int(moment_ms), int(number)


def _line(job: JobRecord | JobEvent, message: str) -> str:
    done = "" if job.progress is None else f"{percent(job)}%  "
    return f"{short_id(job.job_id)}  {job.status}  {done}{one_line(message)}".rstrip()


class _PageView:
    """What rich draws for all jobs; it redraws on a timer for the elapsed times."""

    def __init__(self, page: JobPage) -> None:
        self.page = page

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(summary_line(self.page.summary), style="bold"), live_table(self.page.jobs))


def live_table(records: Sequence[JobRecord]) -> Table:
    """Return a table of jobs with progress, elapsed time and latest message."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name, width, ratio in _LIVE_COLUMNS:
        table.add_column(name, no_wrap=True, overflow="ellipsis", width=width, ratio=ratio)
    for record in records:
        runs = record.status == State.PROCESSING
        started = record.started_at if runs or record.completed_at is not None else record.created_at
        table.add_row(
            Text(short_id(record.job_id)),
            Text(kind(record)),
            Text(str(record.status), style=STATE_STYLES.get(str(record.status), "")),
            ProgressBar(record) if runs else Text(""),
            Text(f"{percent(record):3}%"),
            Text(since(started, record.completed_at)),
            Text(what(record)),
            Text(why(record)),
        )
    return table


#: Heading, width in characters, share of the remaining room.
_LIVE_COLUMNS = (
    ("ID", None, None),
    ("JOB", None, None),
    ("STATE", None, None),
    ("", 16, None),
    ("DONE", 4, None),
    ("TIME", None, None),
    ("WHAT", None, 1),
    ("REASON", None, 1),
)


def _draw_all(watch: _JobsWatch, limit: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    rows = max(1, console.height - _OTHER_LINES) if limit is None else limit
    view = _PageView(watch.page(rows))
    with Live(view, console=console, refresh_per_second=_REDRAWS_PER_S) as live:
        changes = _changes(watch)
        while is_active(view.page.summary):
            next(changes)
            began_s = time.monotonic()
            view.page = watch.page(rows)
            live.refresh()
            # The first change is drawn at once, those right after it together: drawing takes at most half of
            # our time, and at most a fifth of a large store's.
            pause_s = max(_REDRAW_MIN_S, 2 * (time.monotonic() - began_s))
            if is_active(view.page.summary):
                time.sleep(pause_s)
        # The jobs of the last page were read before its counts: one of them may have ended in between.
        view.page = watch.page(rows)


def _changes(watch: _JobsWatch) -> Iterator[None]:
    """Yield after a change; all events since the previous one count as one change."""
    from queue import SimpleQueue
    from threading import Thread

    news: SimpleQueue[JobEvent | BridgeError] = SimpleQueue()
    Thread(target=_listen, args=(news, watch.since_event), daemon=True).start()
    while True:
        items = [news.get()]
        while not news.empty():
            items.append(news.get())
        taken = False
        for item in items:
            if isinstance(item, BridgeError):
                raise item
            taken = watch.takes(item) or taken or item.status in FINAL
        if taken:
            yield


def _listen(news: SimpleQueue[JobEvent | BridgeError], since_event: str) -> None:
    try:
        for event in follow_all(after=since_event):
            if event is not None:
                news.put(event)
    except BridgeError as error:
        news.put(error)
