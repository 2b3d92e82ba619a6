"""The short way for commands that only hand a job in: ``run``, ``sh --detach``, ``ask --detach``.

Whoever types waits for the whole process, and a third of its time would go into importing click. So the plain
forms of these commands are read here; whatever has another option goes to click, which knows them all and
explains what is wrong. What a job is made of and how it is handed in is the same for both (``handing.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


def quick(arguments: Sequence[str]) -> Callable[[], int] | None:
    """Give what carries this command line out, or None if it is not one of the plain forms.

    Args:
        arguments: What follows the program's name.
    """
    if sys.stdout is None or sys.stderr is None:
        return None
    command, *words = arguments
    if command == "run" and len(words) > 1 and _plain(words):
        return lambda: _run(words[0], words[1:])
    if not words or words[0] != "--detach":
        return None
    words = words[1:]
    if command == "ask" and words and _plain(words):
        return lambda: _ask(words)
    if command == "sh" and words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-"):
        return None
    return (lambda: _sh(words)) if command == "sh" and words else None


def _plain(words: Sequence[str]) -> bool:
    return not any(word.startswith("-") for word in words)


def _run(project: str, words: Sequence[str]) -> int:
    from ingress.cli.job_builder import hand_in, task, task_line

    job = task(project, words)
    return hand_in(job, line=task_line(job))


def _ask(words: Sequence[str]) -> int:
    from ingress.cli.job_builder import hand_in, question

    job = question(words)
    return hand_in(job, line=job.job_id)


def _sh(argv: Sequence[str]) -> int:
    from ingress.cli.job_builder import command, hand_in

    job = command(argv)
    return hand_in(job, line=job.job_id)
