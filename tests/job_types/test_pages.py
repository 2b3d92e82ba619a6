"""The pages for those who bring their own actors, followed to the letter on real pools."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ingress.core.lookup import find
from tests.job_types.conftest import Pools
from tests.job_types.page import Page, run_python
from tests.support import ROOT, eventually, run_3ox
from tests.workers import worker_unit

OWN_ACTORS = "how-to/run-your-own-actors.md"


def threeox(pools: Pools, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ``3ox`` that has to succeed; none imports the actors."""
    environ = {**pools.environ, "PYTHONPATH": str(ROOT)}
    done = run_3ox(*shlex.split(command), environ=environ, cwd=pools.folder)
    assert done.returncode == 0, (command, done.stderr)
    return done


def job_of(pools: Pools, job_type: str) -> str:
    """Return the id of the only job of a type."""
    (row,) = pools.bridge.reader.page(job_type=job_type).jobs
    return row.job_id


@pytest.fixture
def page(pools: Pools) -> Page:
    """The page about one's own actors, with its files written."""
    found = Page(OWN_ACTORS, pools)
    assert found.write_files() == ["my_jobs.py", "films.py", "albums.py"]
    assert len(found.programs) == 4
    return found


def test_one_file_is_a_pool(pools: Pools, page: Page) -> None:
    """It sends, waits for the result, and is shown by the command line; what does not fit is refused."""
    sends, misfits = page.programs[:2]
    with pools.running("my_jobs") as worker:
        page.run(sends)
        page.run(misfits)
        message_id = pools.bridge.reader.job(job_of(pools, "thumbnail")).job_id
        for command in page.commands[1:3]:
            assert "completed" in threeox(pools, command.replace("UUID", message_id)).stdout
        assert "thumbnail" in threeox(pools, page.commands[0]).stdout
        types, schema, submits = page.commands[3:6]
        for command in (types, schema):
            assert "thumbnail" in threeox(pools, command).stdout
        job_id, result = threeox(pools, submits).stdout.splitlines()
        job = find(pools.bridge, job_id)
        assert job.record().result == json.loads(result) == {"path": "small-b.png", "size": 64}
        worker.terminate()
        worker.wait()
    sends_only = "from my_jobs import thumbnail\nprint(thumbnail.send('c.png').message_id)"
    waiting = find(pools.bridge, run_python(pools, sends_only).strip())
    assert "no worker carries thumbnail" in page.text
    eventually(lambda: waiting.record().reason == "no worker carries thumbnail", 30.0)
    with pools.running("my_jobs"):
        assert waiting.wait(timeout_s=20.0).result == {"path": "small-c.png", "size": 128}


def test_the_actor_of_the_readme_runs(pools: Pools) -> None:
    """Five lines, and a pool for them."""
    (actor,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (pools.folder / "my_jobs.py").write_text(actor)
    with pools.running("my_jobs"):
        sends = (
            "from my_jobs import thumbnail\nprint(thumbnail.send('a.png', size=64).get_result(block=True))"
        )
        assert run_python(pools, sends) == "a.png at 64 pixels\n"


def test_progress_is_shown_and_a_cancellation_stops(pools: Pools, page: Page) -> None:
    """``current_job`` reports from a user's actor; another pool on the store does its own jobs meanwhile."""
    with pools.running("films"), pools.running("my_jobs"):
        page.run(page.programs[2])
        page.run(page.programs[0])
        job = find(pools.bridge, job_of(pools, "convert"))
        eventually(lambda: job.record().progress > 0, 10.0)
        listed, logs, cancels = (
            line.replace("UUID", job.job_id)
            for line in page.commands
            if line.startswith(("jobs --type", "logs", "cancel"))
        )
        assert "convert" in threeox(pools, listed).stdout
        eventually(lambda: "a.mp4 has 1000 frames" in threeox(pools, logs).stdout, 10.0)
        threeox(pools, cancels)
        assert job.wait(timeout_s=20.0).status == "cancelled"


def test_compositions(pools: Pools, page: Page) -> None:
    """A pipeline, a group with its callback, a delay, a failure callback and a coroutine."""
    with pools.running("albums"):
        page.run(page.programs[3])
        assert find(pools.bridge, _ended(pools, "album")).record().result == "album Numbers"
        assert find(pools.bridge, _ended(pools, "report")).record().result == "c.txt: ValueError"


def _ended(pools: Pools, job_type: str) -> str:
    eventually(lambda: pools.bridge.reader.page(job_type=job_type, status="completed").jobs, 20.0)
    return job_of(pools, job_type)


def test_actors_of_the_settings_join_the_own_pool(pools: Pools, page: Page) -> None:
    """``actors`` in 3ox.toml: ``dramatiq actors`` carries them beside the built-in types."""
    (settings,) = re.findall(r"```toml\n(.*?)```", page.text, re.DOTALL)
    (pools.folder / "3ox.toml").write_text(settings)
    with pools.running("actors"):
        page.run(page.programs[0])
        assert threeox(pools, "sh -- echo built-in").stdout == "built-in\n"


@pytest.mark.parametrize("library", ["celery", "rq", "huey"])
def test_the_ported_example_runs(pools: Pools, library: str) -> None:
    """The page for users of another library has an actor, and a program that sends it."""
    page = Page(f"how-to/coming-from-{library}.md", pools)
    assert page.write_files() == ["tasks.py"]
    (program,) = page.programs
    with pools.running("tasks"):
        page.run(program)


class StockProgram:
    """The program of the page for users of Dramatiq, and the edit that it describes."""

    def __init__(self) -> None:
        text = (ROOT / "docs/how-to/coming-from-dramatiq.md").read_text()
        blocks: list[str] = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
        self.stock, self._before, self._after = blocks

    @property
    def edited(self) -> str:
        """The program on the bridge."""
        assert self._before in self.stock
        return self.stock.replace(self._before, self._after)


def test_a_stock_program_runs_on_dramatiq(pools: Pools) -> None:
    """The program of the page is one for Dramatiq's own broker."""
    (pools.folder / "pictures.py").write_text(StockProgram().stock)
    environ = {**pools.environ, "REDIS_URL": pools.environ["BRIDGE_REDIS_URL"]}
    with worker_unit(environ, module="pictures"):
        _send(environ, pools, "a.png")
        eventually((pools.folder / "small-a.png").exists, 30.0)


def test_it_runs_on_the_bridge_though_its_worker_is_killed(pools: Pools) -> None:
    """With the one import changed: all pictures are made, the one that was being made a second time."""
    (pools.folder / "pictures.py").write_text(StockProgram().edited)
    started = pools.folder / "started.log"
    with pools.running("pictures", threads=1) as worker:
        _send(pools.environ, pools, "a.png", "b.png")
        eventually(started.exists, 20.0)
        worker.kill()
    with pools.running("pictures", threads=1):
        eventually(lambda: pools.bridge.reader.summary()["completed"] == 2, 30.0)
    assert sorted(started.read_text().split()) == ["a.png", "a.png", "b.png"]
    assert [Path(pools.folder, f"small-{name}.png").read_text() for name in "ab"] == ["640 pixels wide"] * 2
    jobs = pools.bridge.reader.page(job_type="resize").jobs
    assert sorted(pools.bridge.reader.job(row.job_id).crashes for row in jobs) == [0, 1]


def _send(environ: dict[str, str], pools: Pools, *names: str) -> None:
    subprocess.run(
        [sys.executable, "pictures.py", *names], env=environ, cwd=pools.folder, check=True, timeout=60
    )
