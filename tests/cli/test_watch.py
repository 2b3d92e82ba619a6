"""``--watch``: in a pipe a line for each change, on a terminal bars that move; it ends with the jobs."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.support import Cli
from tests.support import eventually, threeox
from tests.tools import require_tool

#: What five tasks look like on a terminal of 110 columns; ids, times and hosts are replaced.
PANES = Path(__file__).with_name("panes")


def queue(cli: Cli, project: str, task: str) -> str:
    """Submit a task and return its job id."""
    return cli("run", project, task).out.strip().rpartition(":")[2]


def test_watch_in_a_pipe_is_a_line_for_each_change(bridge: Cli, tmp_path: Path) -> None:
    """``jobs ID --watch`` prints each change once and exits with the job's outcome."""
    gates = tmp_path / "gate"
    job_id = queue(bridge, "demo", f"steps {gates}")
    watcher = bridge.start("jobs", job_id, "--watch")
    lines = []
    for percent in (20, 60):
        lines += _read_to(watcher, f"part {percent}")
        Path(f"{gates}.{percent}").touch()
    out, err = watcher.communicate(timeout=15)
    lines += out.splitlines()
    assert (watcher.returncode, err) == (0, "")
    assert len(lines) == len(set(lines))
    assert [job_id[-8:], "processing", "20%", "part", "20"] in [line.split() for line in lines]
    assert lines[-1].split()[:3] == [job_id[-8:], "completed", "100%"]


def _read_to(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came: {lines}")


def test_watch_of_a_job_that_fails_exits_1(bridge: Cli) -> None:
    """The watch of a failed job exits with 1 and prints the reason."""
    code, out, err = bridge("jobs", queue(bridge, "demo", "fail"), "--watch")
    assert code == 1
    assert "failed" in out
    assert "exit status 1" in err


def test_watch_on_a_terminal_draws_a_bar(bridge: Cli, tmp_path: Path) -> None:
    """On a terminal ``--watch`` draws a bar that moves, with message and time, and ends with the job."""
    gates = tmp_path / "gate"
    job_id = queue(bridge, "demo", f"steps {gates}")
    code, drawn = bridge.on_terminal(
        "jobs",
        job_id,
        "--watch",
        reactions={
            "part 20": lambda _: Path(f"{gates}.20").touch(),
            "part 60": lambda _: Path(f"{gates}.60").touch(),
        },
    )
    assert code == 0
    assert "━" in drawn
    assert drawn.index(" 20%") < drawn.index(" 60%") < drawn.index("100%")


def test_watch_with_json_is_the_job_at_its_end(bridge: Cli) -> None:
    """``jobs ID --watch --json`` waits and prints one document."""
    job_id = queue(bridge, "demo", "x")
    assert bridge("jobs", job_id, "--watch", "--json").json["status"] == "completed"


def test_watch_all_in_a_pipe_ends_when_nothing_runs(bridge: Cli, tmp_path: Path) -> None:
    """``jobs --watch`` in a pipe prints changes until no job is active, then the summary."""
    gates = tmp_path / "gate"
    ids = [queue(bridge, "demo", f"steps {gates}") for _ in range(2)]
    for job_id in ids:
        bridge.wait_for_status(job_id, "processing")
    watcher = bridge.start("jobs", "--watch")
    lines = _read_to(watcher, "part 20")
    Path(f"{gates}.20").touch()
    lines += _read_to(watcher, "part 60")
    Path(f"{gates}.60").touch()
    out, _ = watcher.communicate(timeout=15)
    lines += out.splitlines()
    assert watcher.returncode == 0
    for job_id in ids:
        assert any(line.split()[:2] == [job_id[-8:], "completed"] for line in lines)
    assert lines[-1].startswith("Processing: 0  Queued: 0")


def test_watch_all_with_nothing_to_watch_ends_at_once(quiet: Cli) -> None:
    """With no active job ``jobs --watch`` in a pipe prints the summary."""
    assert quiet("jobs", "--watch").out == "Processing: 0  Queued: 0  Completed: 0  Failed: 0\n"


def test_watch_all_filters(bridge: Cli, tmp_path: Path) -> None:
    """``jobs --watch --project`` prints changes of that project's jobs only."""
    gates = tmp_path / "gate"
    other, mine = queue(bridge, "demo", f"steps {gates}"), queue(bridge, "website", f"steps {gates}")
    bridge.wait_for_status(mine, "processing")
    watcher = bridge.start("jobs", "--watch", "--project", "website")
    lines = _read_to(watcher, "part 20")
    Path(f"{gates}.20").touch()
    lines += _read_to(watcher, "part 60")
    Path(f"{gates}.60").touch()
    out, _ = watcher.communicate(timeout=15)
    assert f"{mine[-8:]}  completed" in out
    assert other[-8:] not in out
    assert not any(other[-8:] in line for line in lines)


def test_watch_all_in_a_pipe_exits_1_when_one_fails(bridge: Cli, tmp_path: Path) -> None:
    """A matching job that fails meanwhile makes the exit code 1."""
    gate = tmp_path / "gate"
    job_id = bridge("run", "website", f"wait for {gate}").out.strip().rpartition(":")[2]
    bridge.wait_for_status(job_id, "processing")
    mine = bridge.start("jobs", "--watch", "--project", "website")
    other = bridge.start("jobs", "--watch", "--project", "demo")
    other.communicate(timeout=15)
    assert other.returncode == 0
    assert mine.stdout is not None
    assert job_id[-8:] in mine.stdout.readline()
    bridge("cancel", job_id)
    out, _ = mine.communicate(timeout=15)
    assert mine.returncode == 1
    assert f"{job_id[-8:]}  cancelled" in out


class Screen:
    """A terminal of tmux.

    Parameters:
        socket: Of a tmux server of its own.
        command: What runs in it.
        environ: Its environment.
    """

    def __init__(self, socket: Path, command: list[str], environ: dict[str, str]) -> None:
        self._program = require_tool("tmux")
        self._socket = str(socket)
        kept = {name: value for name, value in environ.items() if name not in {"TMUX", "COLUMNS", "LINES"}}
        script = 'trap "" INT; "$@"; echo "exit $?"; sleep 60'
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-s", "watch", "-x", "110", "-y", "14",
            "sh", "-c", script, "sh", *command,
            environ={**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )  # fmt: skip

    def _tmux(self, *arguments: str, environ: dict[str, str] | None = None) -> str:
        ran = subprocess.run(
            [self._program, "-u", "-S", self._socket, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return ran.stdout

    def capture(self) -> str:
        """Return the content of the screen."""
        return self._tmux("capture-pane", "-p", "-t", "watch")

    def wait_for(self, *texts: str) -> str:
        """Wait until all of these texts are on the screen, and return it."""

        def found() -> str:
            drawn = self.capture()
            return drawn if all(text in drawn for text in texts) else ""

        try:
            return eventually(found, 30.0)
        except AssertionError:
            raise AssertionError(f"{texts} not on:\n{self.capture()}") from None

    def wait_until_shows(self, kept: Path) -> str:
        """Wait until the screen is as in a file, but for what differs from run to run, and return it."""

        def found() -> str:
            drawn = self.capture()
            return drawn if plain(drawn) == kept.read_text() else ""

        try:
            return eventually(found, 30.0)
        except AssertionError:
            raise AssertionError(f"not as in {kept}:\n{plain(self.capture())}") from None

    def end(self) -> None:
        """Close the terminal and its server."""
        self._tmux("kill-server")


@contextmanager
def on_screen(socket: Path, cli: Cli, *arguments: str) -> Iterator[Screen]:
    """Run ``3ox`` on a terminal of tmux for the time of a block."""
    screen = Screen(socket, list(threeox(*arguments)), cli.environ)
    try:
        yield screen
    finally:
        screen.end()


def plain(pane: str) -> str:
    """Replace what differs from run to run."""
    text = re.sub(r"[0-9a-z]{8}(?=  task)", "<id>    ", pane)
    text = re.sub(r" +\d+(\.\d)?s ", " <t> ", text)
    text = re.sub(r"steps \S+", "steps", text)
    text = re.sub(r"attempt 1 \S+", "attempt 1 ...", text)
    text = re.sub(r"(?<=Completed: )\d+|(?<=Failed: )\d+|  Cancelled: \d+", "", text)
    return "\n".join(re.sub(r"  +", "  ", line).rstrip() for line in text.splitlines()).rstrip() + "\n"


def rows(pane: str) -> list[str]:
    """Return the lines of the running tasks."""
    return [line for line in pane.splitlines() if " processing " in line]


def test_five_running_tasks_show_five_moving_bars(five: Cli, tmp_path: Path) -> None:
    """On a real terminal each task has a progress bar; the view ends when all tasks have."""
    gates = [tmp_path / f"g{number}" for number in range(5)]
    ids = []
    for gate in gates:
        ids.append(queue(five, "demo", f"steps {gate}"))
        five.wait_for_status(ids[-1], "processing")
    with on_screen(tmp_path / "tmux", five, "jobs", "--watch") as screen:
        early = screen.wait_until_shows(PANES / "watch_20.txt")
        for gate in gates:
            Path(f"{gate}.20").touch()
        late = screen.wait_until_shows(PANES / "watch_60.txt")
        assert [row.split()[0] for row in rows(early)] == [job_id[-8:] for job_id in ids]
        for before, after in zip(rows(early), rows(late), strict=True):
            assert (before.count("━"), before.count("─")) == (3, 13)
            assert (after.count("━"), after.count("─")) == (10, 6)
            assert ("part 20" in before, "part 60" in after) == (True, True)
        for gate in gates:
            Path(f"{gate}.60").touch()
        end = screen.wait_for("exit 0", "Processing: 0")
    assert end.count("completed") == 5, end


@pytest.mark.serial
def test_a_change_shows_in_less_than_50_ms(five: Cli, tmp_path: Path) -> None:
    """From the report of a task to the screen, at the median of several reports."""
    gate = tmp_path / "gate"
    job_id = queue(five, "demo", f"ticks {gate}")
    five.wait_for_status(job_id, "processing")
    seen_s: list[float] = []

    def grow() -> None:
        with gate.open("a") as file:
            file.write("x")

    def tick(_: subprocess.Popen[bytes]) -> None:
        # The task says the next one each time the file grows, long after the redraw of this one.
        seen_s.append(time.time())
        threading.Timer(0.15, grow).start()

    reactions = {f"tick {number} ": tick for number in range(8)}
    code, drawn = five.on_terminal("jobs", "--watch", columns=140, reactions=reactions)
    assert code == 0
    said_s = [float(stamp) for stamp in re.findall(r"at (\d+\.\d+)", Path(f"{gate}.log").read_text())]
    # The first had been said before anybody watched.
    spans_ms = sorted(1000 * (seen - said) for said, seen in zip(said_s[1:], seen_s[1:], strict=True))
    assert spans_ms[len(spans_ms) // 2] < 50, (spans_ms, drawn[-300:])


@pytest.fixture
def five(environ: dict[str, str]) -> Iterator[Cli]:
    """A bridge of the test's own with a worker of eight threads."""
    from ingress.dispatch import connect
    from ops.settings.load import load_settings
    from tests.cli.conftest import settle_workspace
    from tests.workers import running_worker, sweep

    home = Path(environ["BRIDGE_HOME"])
    settle_workspace(home)
    (home / "WORKDESK" / "tool.py").open("a").write(TICKS)
    bridge = connect(load_settings(environ=environ))
    with running_worker(bridge, environ, threads=8):
        cli = Cli(environ)
        yield cli
        cli.end()
    sweep(environ)


#: A task that reports each time a file grows, the last time to end; it writes down when it did.
TICKS = """
if task.startswith("ticks "):
    gate = task[6:]
    with open(gate + ".log", "w") as log:
        for number in range(8):
            print(f"::progress {number} tick {number} ", flush=True)
            print(f"tick {number} at {time.time()}", file=log, flush=True)
            while not (os.path.exists(gate) and os.path.getsize(gate) > number):
                time.sleep(0.002)
"""
