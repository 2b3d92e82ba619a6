"""The changes of a task in a worktree: ``jobs ID --diff``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from ingress.core.terminal import emit_json, note
from ingress.core.text import safe
from middleware.job.records import JobRecord
from ops.errors import JobFailed, WrongState
from ops.settings.load import LoadedSettings

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


class Diff(msgspec.Struct, frozen=True):
    """The changes of a task.

    Attributes:
        data: The diff, as ``git apply`` reads it.
        source: Where it was read: ``worktree`` (the files as they are now), ``branch`` or ``result``.
        truncated: Whether its end is missing.
    """

    data: bytes
    source: str
    truncated: bool = False


def find_diff(record: JobRecord, loaded: LoadedSettings) -> Diff:
    """Return the changes: from the worktree if this host has it, the branch, or the job's result.

    Raises:
        WrongState: The job had no worktree, or has not changed anything yet.
    """
    from actors.process.git import Git
    from actors.process.worktree import DIFF
    from actors.task_custom import worktree_of

    stored = changes_of(record)
    project = None if record.project is None else loaded.settings.projects.get(record.project)
    if project is not None and record.project is not None:
        tree = worktree_of(loaded.workspace, project, record.project, record.job_id)
        commit = None if stored is None else stored.get("commit")
        # The result may have what this host no longer has, or never had.
        try:
            if tree.base is not None:
                return Diff(tree.diff(), "worktree")
            if stored is not None and commit is not None:
                return Diff(Git(Path(project.path)).raw(*DIFF, stored["base"], commit), "branch")
        except (JobFailed, OSError):
            if stored is None:
                raise
    if stored is None:
        raise WrongState(
            f"Job {record.job_id} has no worktree with changes.",
            remedy="Set worktree = true for its project; the diff is available once the task runs.",
        )
    return Diff(stored["diff"].encode(), "result", stored["diff_truncated"])


def changes_of(record: JobRecord) -> dict[str, Any] | None:
    """Return the changes in a job's result, None if there are none."""
    changes = record.result.get("changes") if isinstance(record.result, dict) else None
    return changes if isinstance(changes, dict) else None


def show_diff(record: JobRecord, loaded: LoadedSettings, *, as_json: bool) -> None:
    """Print the changes: coloured and escaped on a terminal, byte for byte into a pipe."""
    found = find_diff(record, loaded)
    if as_json:
        text = found.data.decode(errors="replace")
        document = {"job_id": record.job_id, "source": found.source, "truncated": found.truncated}
        emit_json({**document, "diff": text})
    elif sys.stdout.isatty():
        _draw(found.data.decode(errors="replace"))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.data)
        sys.stdout.buffer.flush()
    if found.truncated:
        note("the diff is truncated: it is longer than diff_max_bytes.")


def _draw(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    for line in text.splitlines():
        heading = line.startswith(("+++", "---", "diff ", "index "))
        console.print(Text(safe(line), style="bold" if heading else _STYLES.get(line[:1], "")))
