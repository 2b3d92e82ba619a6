"""A user's whole program with an installed wheel: ``python -m tests.job_types.program [WHEEL]``.

Builds the wheel unless one is named, installs it into a fresh environment, and works in an empty directory,
as a new user does: pools with ``dramatiq MODULE``, jobs from Python, ``3ox``, REST, a schedule and a webhook,
with kills in between. Prints a line for each step with what it saw; exits with 1 at the first that is wrong.
Takes about a minute; run it before a release.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ops.processes import pid_alive
from tests.job_types.user_directory import UserDirectory
from tests.support import eventually

#: Of the group whose callback comes once.
MEMBERS = 1000


class Program:
    """The steps.

    Args:
        user: Its directory.
    """

    def __init__(self, user: UserDirectory) -> None:
        self._user = user
        self._marks = iter(range(1_000))

    def run(self) -> None:
        """Carry all steps out.

        Raises:
            AssertionError: One went wrong.
        """
        user = self._user
        say("3ox up", user.threeox("up", "--detach").stdout.splitlines()[0])
        pool = user.start_pool("my_jobs", "thumbnail")
        say("dramatiq my_jobs", f"carries {', '.join(self._carried())}")
        self._send()
        self._progress_and_cancel()
        pool = self._survivor(pool, self._kill)
        pool = self._survivor(pool, self._pipeline)
        self._group()
        self._surfaces()
        self._two_pools()
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(30.0) == 0

    def _new_marks(self) -> Path:
        return self._user.folder / f"marks-{next(self._marks)}"

    def _carried(self) -> list[str]:
        return [row["name"] for row in self._user.json("types")["types"] if "my_jobs" in row["origin"]]

    def _send(self) -> None:
        sent, result = self._user.python(
            "message = thumbnail.send('a.png', size=64)\n"
            "print(json.dumps([message.message_id, message.get_result(block=True)]))"
        )
        assert result == {"path": "a.png", "size": 64}, result
        say("thumbnail.send, get_result", str(result))
        (listed,) = [job for job in self._user.jobs("thumbnail") if job["source"] == "python"]
        assert listed["job_id"] == self._user.job(sent)["job_id"]
        say("3ox jobs", f"{listed['job_id']} {listed['job_type']} {listed['status']}")

    def _progress_and_cancel(self) -> None:
        user, marks = self._user, self._new_marks()
        job_id = user.send(f"slow.send({str(marks)!r}, 60.0)")
        seen: list[str] = []

        def moved() -> bool:
            job = user.job(job_id)
            if job["progress"] and job["progress_message"] not in seen:
                seen.append(job["progress_message"])
            return len(seen) >= 3

        eventually(moved, 30.0, every_s=0.05)
        say("live progress", ", ".join(seen))
        self._cancel(job_id, "3ox cancel, of Python code")
        marks = self._new_marks()
        job_id = user.send(f"encode.send({str(marks)!r})")
        eventually(lambda: marks.exists() and marks.read_text().endswith("\n"), 30.0)
        child = int(marks.read_text())
        assert pid_alive(child)
        self._cancel(job_id, "3ox cancel, while it waits for a child")
        assert not pid_alive(child), f"process {child} is left"
        say("child processes left", "0")

    def _cancel(self, job_id: str, name: str) -> None:
        asked_s = time.monotonic()
        self._user.threeox("cancel", job_id)
        job = self._user.ended(job_id)
        assert job["status"] == "cancelled", job
        say(name, f"cancelled after {time.monotonic() - asked_s:.2f} s, two commands included")

    def _survivor(self, pool: subprocess.Popen[bytes], step: Callable[[], None]) -> subprocess.Popen[bytes]:
        """Carry out a step that kills a process, with two pools; return the one that is left.

        ``dramatiq`` ends when one of its processes was killed.
        """
        pools = [pool, self._user.start_pool("my_jobs", "thumbnail", pools=2)]
        step()
        eventually(lambda: any(one.poll() is not None for one in pools), 30.0)
        return next(one for one in pools if one.poll() is None)

    def _kill(self) -> None:
        user, marks = self._user, self._new_marks()
        job_id = user.send(f"slow.send({str(marks)!r}, 1.0)")
        eventually(lambda: marks.exists() and marks.read_text().endswith("\n"), 30.0, every_s=0.002)
        os.kill(int(marks.read_text().split()[1]), signal.SIGKILL)
        killed_s = time.monotonic()
        eventually(lambda: marks.read_text().count("start") == 2, 10.0, every_s=0.002)
        took_s = time.monotonic() - killed_s
        job = user.ended(job_id)
        assert (job["status"], job["crashes"], job["attempt"]) == ("completed", 1, 2), job
        assert took_s < 1.0, f"it started again after {took_s:.2f} s"
        say("SIGKILL of its worker process", f"starts again after {took_s:.3f} s, completed")

    def _pipeline(self) -> None:
        user, marks = self._user, self._new_marks()
        steps = ", ".join([f"stage.message({str(marks)!r})"] * 3)
        user.python(f"from dramatiq import pipeline\npipeline([{steps}]).run()")

        def runs() -> list[tuple[int, int]]:
            lines = marks.read_text().splitlines() if marks.exists() else []
            return [(int(number), int(pid)) for number, pid in map(str.split, lines)]

        ((_, pid),) = eventually(lambda: [run for run in runs() if run[0] == 2], 30.0, every_s=0.002)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: runs()[-1][0] == 3, 30.0)
        jobs = [user.ended(job["job_id"]) for job in reversed(user.jobs("stage"))]
        jobs.sort(key=lambda job: str(job["result"]))
        assert [(job["status"], job["result"]) for job in jobs] == [("completed", n) for n in (2, 3, 4)], jobs
        assert [job["crashes"] for job in jobs] == [0, 1, 0], jobs
        shown = ", ".join(str(number) for number, _ in runs())
        say("pipeline of three, killed in the second", f"{len(jobs)} jobs, each completed once; ran {shown}")

    def _group(self) -> None:
        user, marks = self._user, self._new_marks()
        began_s = time.monotonic()
        total = user.python(
            "from dramatiq import group\n"
            f"members = group([add.message(n, 1) for n in range({MEMBERS})])\n"
            f"members.add_completion_callback(count.message({str(marks)!r}, 7))\n"
            "members.run()\n"
            "print(json.dumps(sum(members.get_results(block=True, timeout=60_000))))"
        )
        assert total == sum(range(1, MEMBERS + 1)), total
        eventually(marks.exists, 10.0)
        took_s = time.monotonic() - began_s
        callbacks = [job for job in user.jobs("count") if job["payload"]["number"] == 7]
        assert [user.ended(job["job_id"])["status"] for job in callbacks] == ["completed"], callbacks
        assert marks.read_text() == "7\n"
        say(f"group of {MEMBERS}", f"all results, callbacks: {len(callbacks)}, after {took_s:.1f} s")

    def _surfaces(self) -> None:
        user = self._user
        shown = user.threeox("submit", "thumbnail", "path=b.png", "size=32", "--wait").stdout.strip()
        assert shown.splitlines()[-1] == '{"path":"b.png","size":32}', shown
        say("3ox submit thumbnail path=b.png size=32 --wait", shown.replace("\n", " | "))
        wrong = user.threeox("submit", "thumbnail", "pth=a.png", check=False)
        assert wrong.returncode == 2, wrong
        assert "'path'" in wrong.stderr, wrong.stderr
        say("3ox submit thumbnail pth=a.png", wrong.stderr.strip().splitlines()[0])
        status, receipt = user.post({"job_type": "thumbnail", "payload": {"path": "c.png"}})
        job = user.ended(receipt["job_id"])
        assert (status, job["source"], job["result"]) == (202, "rest", {"path": "c.png", "size": 128}), job
        say("POST /v1/jobs", f"{status}, {job['result']}")
        status, problem = user.post({"job_type": "thumbnail", "payload": {"path": "c.png", "size": "x"}})
        assert status == 409, (status, problem)
        assert "size" in json.dumps(problem), problem
        say("POST with size = 'x'", f"{status}: {problem['detail']}")
        self._say_source("clock", {"path": "scheduled.png", "size": 128})
        status, _ = user.hook({"file": "d.png", "size": 16})
        assert status == 202, status
        self._say_source("webhook", {"path": "d.png", "size": 16})
        status, receipt = user.hook({"file": "d.png", "size": "x"})
        job = user.ended(receipt["job_id"])
        assert (status, job["status"]) == (202, "failed"), job
        assert "'size'" in job["error"]["message"], job
        say("webhook with size = 'x'", f"its job failed: {job['error']['message']}")

    def _say_source(self, source: str, result: Any) -> None:
        jobs = eventually(
            lambda: [job for job in self._user.jobs("thumbnail") if job["source"] == source],
            20.0,
            every_s=0.1,
        )
        job = self._user.ended(jobs[0]["job_id"])
        assert job["result"] == result, job
        say(source, str(result))

    def _two_pools(self) -> None:
        user = self._user
        other = user.start_pool("other_jobs", "report")
        workers: dict[str, str] = {}
        for message in ("thumbnail.send('e.png')", "report.send('monday')"):
            job = user.ended(user.send(message))
            assert job["status"] == "completed", job
            workers[job["job_type"]] = job["worker_id"]
        assert workers["thumbnail"] != workers["report"]
        say("two pools", ", ".join(f"{name} on {worker}" for name, worker in workers.items()))
        other.send_signal(signal.SIGTERM)
        assert other.wait(30.0) == 0
        job_id = user.send("report.send('tuesday')")
        waiting = user.job(job_id)
        assert waiting["status"] == "queued", waiting
        assert waiting["reason"] == "no worker carries report", waiting
        done = user.ended(user.send("thumbnail.send('f.png')"))
        assert done["status"] == "completed", done
        say("one pool stopped", f"its job is {waiting['status']}: {waiting['reason']}; the other one works")
        other = user.start_pool("other_jobs", "report")
        job = user.ended(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 1), job
        say("started again", str(job["result"]))
        other.send_signal(signal.SIGTERM)
        assert other.wait(30.0) == 0


def say(name: str, text: str) -> None:
    """Print what a step saw."""
    sys.stdout.write(f"{name:<48} {text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the program; return the exit status.

    Args:
        arguments: Path of a wheel, or nothing.
    """
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="3ox-program-", ignore_cleanup_errors=True) as folder:
        user = UserDirectory(Path(folder))
        try:
            user.install(Path(arguments[0]).resolve() if arguments else None)
            say("installed", user.threeox("--version").stdout.splitlines()[0])
            Program(user).run()
        except (AssertionError, LookupError, TypeError, ValueError):
            say("WRONG", traceback.format_exc())
            with contextlib.suppress(OSError):
                sys.stdout.write((user.folder / "my_jobs.log").read_text()[-3000:])
            return 1
        finally:
            user.clean_up()
    say("all as documented", f"{time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
