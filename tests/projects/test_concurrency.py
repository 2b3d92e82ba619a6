"""A project with ``concurrency = 1`` never runs two tasks, even if workers are killed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ingress.dispatch import list_jobs
from tests.projects.conftest import PYTHON, Site
from tests.support import eventually

TASKS = 90
#: Takes a lock that goes with the process, and tells when somebody else has it.
TASK = """
import fcntl, os, sys
number = sys.argv[1]
def say(text):
    fd = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text} {number}\\n".encode())
with open("lock", "w") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("two")
        sys.exit("two at once")
    say("ran")
"""


def test_ninety_tasks_one_at_a_time_with_workers_killed(site: Site, tmp_path: Path) -> None:
    """Three worker processes, of which one after the other is killed in the middle of a task."""
    (tmp_path / "task.py").write_text(TASK)
    site.configure(
        f'[projects.demo]\npath = "{tmp_path}"\ncommand = ["{PYTHON}", "-S", "-E", "task.py", "{{task}}"]\n'
        "concurrency = 1\n"
    )
    journal = tmp_path / "journal"
    ids = [site.add(str(number)) for number in range(TASKS)]

    def has_run(goal: int) -> bool:
        return journal.exists() and journal.read_bytes().count(b"\n") >= goal

    def all_have_ended() -> bool:
        holder()
        return list_jobs(limit=1).summary["completed"] == TASKS

    def holder() -> str | None:
        running = list_jobs(status="processing", limit=10).jobs
        assert len(running) <= 1
        return running[0].worker_id if running else None

    with site.workers(3) as workers:
        for goal in (25, 50):
            eventually(partial(has_run, goal), 40.0)
            # A worker process that has died is replaced by the watchdog, the others go on.
            victim = eventually(lambda: [one for one in workers if one.worker_id == holder()], 20.0)[0]
            victim.kill()
            workers.remove(victim)
        eventually(all_have_ended, 45.0)
    lines = journal.read_text().split("\n")
    assert [line for line in lines if line.startswith("two")] == []
    assert {line.split()[1] for line in lines if line} == {str(number) for number in range(TASKS)}
    page = list_jobs(limit=TASKS)
    assert {record.job_id for record in page.jobs} == set(ids)
    assert sum(record.crashes for record in page.jobs) <= 2
