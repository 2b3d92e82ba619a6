"""``ask``, ``run`` and ``sh``, run by a real worker, and in-process without a store."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from ops.processes import pid_alive
from tests.cli.support import Cli


def test_run_prints_its_one_line_and_queues_the_task(quiet: Cli) -> None:
    """``run`` returns at once; its line names the project and the job, which has the given fields."""
    code, out, err = quiet("run", "demo", "paint", "it", "--priority", "2", "--timeout", "90")
    assert (code, err) == (0, "")
    agent, project, job_id = out.strip().split(":")
    assert (agent, project, out.count("\n")) == ("agent", "demo", 1)
    job = quiet.job(job_id)
    assert job["payload"] == {"task": "paint it"}
    assert (job["job_type"], job["status"], job["priority"]) == ("task.custom", "queued", 2)
    assert (job["source"], job["actor"]) == ("cli", _login())
    assert job["timeout_seconds"] == 90


def _login() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def test_run_takes_the_priority_of_the_project(quiet: Cli) -> None:
    """The project's priority is used unless the command sets another."""
    assert quiet.job(_queued(quiet, "website", "x"))["priority"] == 3
    assert quiet.job(_queued(quiet, "website", "x", "--priority", "7"))["priority"] == 7


def _queued(cli: Cli, *arguments: str) -> str:
    return cli("run", *arguments).out.strip().rpartition(":")[2]


def test_run_with_json_prints_the_receipt(quiet: Cli) -> None:
    """``run --json`` is one document: the receipt."""
    receipt = quiet("run", "demo", "x", "--json").json
    assert receipt["status"] == "queued"
    assert receipt["receipt_id"] == quiet("receipt", receipt["job_id"], "--json").json["receipt_id"]


def test_run_refuses_an_unknown_project(quiet: Cli) -> None:
    """An unknown project is wrong use, and the nearest one is named."""
    code, out, err = quiet("run", "demmo", "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Unknown project 'demmo'. Did you mean 'demo'?" in err
    assert quiet("jobs", "--json").json["jobs"] == []


def test_run_after_holds_the_job_until_the_other_is_completed(bridge: Cli, tmp_path: Path) -> None:
    """``--after`` takes a shortened id and lets the job start when that one is completed."""
    gate = tmp_path / "gate"
    first = bridge("run", "demo", f"wait for {gate}").out.strip().rpartition(":")[2]
    second = bridge("run", "demo", "second", "--after", first[-8:]).out.strip().rpartition(":")[2]
    held = bridge.job(second)
    assert (held["status"], held["depends_on"]) == ("held", [first])
    gate.touch()
    done = bridge.wait_for_status(second, "completed")
    assert done["started_at"] >= bridge.job(first)["completed_at"]


def test_run_after_an_unknown_job_is_refused(quiet: Cli) -> None:
    """``--after`` with an unknown id exits with 4."""
    code, out, err = quiet("run", "demo", "x", "--after", "zzzzzzzz")
    assert (code, out) == (4, "")
    assert err == "3ox: Job 'zzzzzzzz' not found. '3ox jobs --all' lists all jobs.\n"


def test_run_wait_shows_output_and_exits_as_the_job_ended(bridge: Cli) -> None:
    """``--wait`` exits with 0 for a completed job, with 1 and its error on stderr for a failed one."""
    code, out, _ = bridge("run", "demo", "good", "--wait")
    assert code == 0
    assert out.splitlines()[1:] == ["done: good"]
    code, out, err = bridge("run", "demo", "fail", "--wait")
    assert code == 1
    assert out.splitlines()[1:] == ["about to fail"]
    assert "no luck" in err
    assert "failed: exit status 1" in err


def test_run_wait_interrupted_leaves_the_job_alone(bridge: Cli, tmp_path: Path) -> None:
    """Ctrl-C stops the waiting, not the job, and prints how to follow it."""
    gate = tmp_path / "gate"
    process = bridge.start("run", "demo", f"wait for {gate}", "--wait")
    assert process.stdout is not None
    job_id = process.stdout.readline().strip().rpartition(":")[2]
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"3ox logs {job_id} -f" in err
    gate.touch()
    bridge.wait_for_status(job_id, "completed")


def test_sh_streams_both_outputs_and_takes_the_exit_status(bridge: Cli) -> None:
    """Stdout goes to stdout, stderr to stderr, and the status is ours; nothing is added."""
    code, out, err = bridge("sh", "--", "sh", "-c", "echo hi; echo oh >&2; exit 3")
    assert (code, out, err) == (3, "hi\n", "oh\n")


def test_sh_runs_where_the_caller_is(bridge: Cli, tmp_path: Path) -> None:
    """The caller's directory is the default, ``--cwd`` is relative to it."""
    (tmp_path / "inside").mkdir()
    assert bridge("sh", "pwd", cwd=tmp_path).out == f"{tmp_path}\n"
    assert bridge("sh", "--cwd", "inside", "--", "pwd", cwd=tmp_path).out == f"{tmp_path}/inside\n"


def test_sh_passes_options_of_the_command_on(bridge: Cli) -> None:
    """Everything after the command belongs to it, also without ``--``."""
    assert bridge("sh", "printf", "%s|", "--json", "-h", "").out == "--json|-h||"


def test_sh_names_the_signal_that_ended_the_command(bridge: Cli) -> None:
    """A signal shows as 128 + its number, and is named."""
    code, _, err = bridge("sh", "--", "sh", "-c", "kill -KILL $$")
    assert code == 128 + signal.SIGKILL
    assert "SIGKILL" in err


def test_sh_that_cannot_start_says_why(bridge: Cli) -> None:
    """A program that does not exist fails the job, with a remedy and the exit status of a shell."""
    code, out, err = bridge("sh", "--", "no-such-program")
    assert (code, out) == (127, "")
    assert "The program 'no-such-program' does not exist. Check its name" in err


def test_sh_time_limit_ends_the_command(bridge: Cli) -> None:
    """``--timeout`` ends the command; the exit code is 1 and stderr says why."""
    code, _, err = bridge("sh", "--timeout", "0.3", "--", "sleep", "60")
    assert code == 1
    assert "0.3 s" in err


def test_sh_json_is_one_document(bridge: Cli) -> None:
    """``--json`` prints the job and nothing of its output; the exit status stays the command's."""
    code, out, err = bridge("sh", "--json", "--", "sh", "-c", "echo hi; exit 4")
    assert (code, err) == (4, "")
    assert out.startswith("{")
    assert out.count("\n") == 1


def test_sh_detached_prints_the_id(quiet: Cli) -> None:
    """``--detach`` prints the job's id and does not wait."""
    code, out, _ = quiet("sh", "--detach", "--", "echo", "hi")
    assert code == 0
    assert quiet.job(out.strip())["payload"]["argv"] == ["echo", "hi"]


def test_ctrl_c_cancels_the_command_and_all_that_it_started(bridge: Cli, tmp_path: Path) -> None:
    """After Ctrl-C on ``sh`` the exit code is 130, the job is cancelled and no process of it is left."""
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! > {pids}; echo $$ >> {pids}; echo ready; wait"
    process = bridge.start("sh", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "cancelled" in err
    assert [pid for pid in pids.read_text().split() if pid_alive(int(pid))] == []
    newest = bridge("jobs", "--type", "shell.cmd", "--limit", "1", "--json").json["jobs"][0]
    assert newest["status"] == "cancelled"
    assert "Ctrl-C" in newest["reason"]


def test_a_polite_kill_cancels_too(bridge: Cli) -> None:
    """SIGTERM acts as Ctrl-C does; the exit code is the signal's."""
    process = bridge.start("sh", "--", "sh", "-c", "echo ready; sleep 300")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, err = process.communicate(timeout=15)
    assert process.returncode == 128 + signal.SIGTERM
    assert "cancelled" in err


def test_a_closed_pipe_ends_the_command(bridge: Cli) -> None:
    """A command whose reader has closed the pipe gets SIGPIPE, as in a shell."""
    process = bridge.start("sh", "--", "sh", "-c", "while :; do echo line; sleep 0.02; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(20) == 141
    newest = bridge("jobs", "--type", "shell.cmd", "--limit", "1", "--json").json["jobs"][0]
    assert (newest["status"], newest["result"]["signal"]) == ("failed", "SIGPIPE")


def test_waiting_without_any_worker_says_so(quiet: Cli) -> None:
    """Without a worker, a note says so, and the wait can be interrupted."""
    process = quiet.start("sh", "--", "echo", "hi")
    assert process.stderr is not None
    assert "no worker is running" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert [job["status"] for job in quiet("jobs", "--json").json["jobs"]] == ["cancelled"]


def test_ask_streams_the_answer(bridge: Cli) -> None:
    """``ask`` prints the answer and ends its line."""
    assert bridge("ask", "why", "not?") == (0, "You asked: why not? \n", "")


def test_ask_reads_the_prompt_from_stdin(bridge: Cli) -> None:
    """``-`` takes the prompt from stdin."""
    assert bridge("ask", "-", stdin="from a pipe\n").out == "You asked: from a pipe \n"


def test_ask_carries_its_options(quiet: Cli) -> None:
    """Provider, model, system and session reach the job."""
    job_id = quiet(
        "ask",
        "hi",
        "--provider",
        "command",
        "--model",
        "m1",
        "--system",
        "be brief",
        "--session",
        "s1",
        "--detach",
    ).out.strip()
    job = quiet.job(job_id)
    assert job["payload"] == {"prompt": "hi", "provider": "command", "model": "m1", "system": "be brief"}
    assert job["session_id"] == "s1"


def test_ask_that_fails_exits_1_with_the_error(bridge: Cli) -> None:
    """When no provider answers, stderr says why and the exit code is 1."""
    code, _, err = bridge("ask", "fail")
    assert code == 1
    assert "failed:" in err


def test_ask_refuses_an_empty_prompt(quiet: Cli) -> None:
    """An empty prompt on stdin is wrong use and names the field."""
    code, _, err = quiet("ask", "-")
    assert code == 2
    assert "payload.prompt" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("sh", "--", "sh", "-c", "echo hi; exit 3"), (3, "hi\n")),
        (("ask", "hello"), (0, "You asked: hello \n")),
    ],
)
def test_without_a_store_the_job_runs_here(
    storeless: Cli, arguments: tuple[str, ...], expected: tuple[int, str]
) -> None:
    """Interactive commands run the same actor in-process and say so in one line on stderr."""
    code, out, err = storeless(*arguments)
    assert (code, out) == expected
    assert err.count("\n") == 1
    assert "does not answer" in err
    assert "runs in this process" in err


def test_without_a_store_run_wait_runs_here(storeless: Cli) -> None:
    """``run --wait`` works without a store, ``run`` alone ends with 3."""
    code, out, err = storeless("run", "demo", "here", "--wait")
    assert (code, out.splitlines()[1:]) == (0, ["done: here"])
    assert "runs in this process" in err
    code, out, err = storeless("run", "demo", "here")
    assert (code, out, err.count("\n")) == (3, "", 1)


def test_without_a_store_json_has_the_job_and_its_receipt(storeless: Cli) -> None:
    """``--json`` gives the same job and receipt as a worker would have made."""
    job = storeless("sh", "--json", "--", "echo", "hi").json
    assert (job["status"], job["result"]["stdout_tail"]) == ("completed", "hi\n")
    assert job["receipt"]["receipt_id"] == job["receipt_id"]
    assert [move["status"] for move in job["receipt"]["transitions"]] == ["queued", "processing", "completed"]


def test_without_a_store_ctrl_c_stops_the_command(storeless: Cli, tmp_path: Path) -> None:
    """Ctrl-C in the fallback leaves no process and exits with 130."""
    pid_file = tmp_path / "pid"
    process = storeless.start("sh", "--", "sh", "-c", f"echo $$ > {pid_file}; echo ready; sleep 300")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert not pid_alive(int(pid_file.read_text()))


@pytest.mark.parametrize(
    "arguments",
    [("jobs",), ("wait", "abc"), ("cancel", "abc"), ("retry", "abc"), ("logs", "abc"), ("receipt", "abc")],
)
def test_without_a_store_other_commands_exit_3(storeless: Cli, arguments: tuple[str, ...]) -> None:
    """Commands that need the store report in one line that it is unavailable, and exit with 3."""
    code, out, err = storeless(*arguments)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "does not answer" in err
