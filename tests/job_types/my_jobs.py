"""A user's own actors, as the documentation has them; it is copied into a directory of its own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import dramatiq

from actors import broker  # noqa: F401 (it is Dramatiq's global broker from here on)
from actors.context import current_job


@dramatiq.actor(queue_name="media", max_retries=3, time_limit=60_000)
def thumbnail(path: str, size: int = 128) -> dict[str, object]:
    """Make a small picture of a large one."""
    return {"path": path, "size": size}


@dramatiq.actor(queue_name="media", max_retries=0)
def slow(marks: str, seconds: float) -> str:
    """Report progress while it works, and leave a mark when it starts and when it ends."""
    with Path(marks).open("a") as file:
        file.write(f"start {os.getpid()}\n")
    for step in range(int(seconds * 20)):
        current_job().progress(step / (seconds * 20) * 100, f"step {step}")
        time.sleep(0.05)
    with Path(marks).open("a") as file:
        file.write("end\n")
    return "done"


@dramatiq.actor(queue_name="media", min_backoff=10)
def count(marks: str, number: int = 0) -> int:
    """Count its own runs in a file, and return one more than it got."""
    with Path(marks).open("a") as file:
        file.write(f"{number}\n")
    time.sleep(0.3 if number == 1 else 0.0)
    return number + 1


@dramatiq.actor(queue_name="media")
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@dramatiq.actor(queue_name="media")
async def hello(name: str) -> str:
    """Be a coroutine."""
    return f"hello {name}"


@dramatiq.actor(queue_name="media", max_retries=0)
def encode(marks: str) -> int:
    """Wait for a program that runs for minutes."""
    with subprocess.Popen(["sleep", "300"]) as child:
        Path(marks).write_text(f"{child.pid}\n")
        return child.wait()


@dramatiq.actor(queue_name="media", min_backoff=10)
def stage(marks: str, number: int = 1) -> int:
    """Note its number and process in a file, take a while as the second one, and return the next number."""
    with Path(marks).open("a") as file:
        file.write(f"{number} {os.getpid()}\n")
    time.sleep(1.0 if number == 2 else 0.0)
    return number + 1
