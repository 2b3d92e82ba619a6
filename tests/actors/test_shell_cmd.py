"""``shell.cmd``: status, output, environment, and what it refuses to run."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from actors.process.child import CommandFailed
from actors.process.output import NOTE_BYTES
from ops.environment import NETWORK_VARIABLES
from ops.errors import JobFailed, JobParked, JobRefused
from ops.settings.load import LoadedSettings
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.support import clean_environ, eventually
from tests.tools import require_tool

pytestmark = pytest.mark.usefixtures("plain")


def shell(script: str, *, program: str = "sh", **payload: object) -> JobRun:
    """Make a job that runs a script in a shell, or in another interpreter that knows ``-c``."""
    return JobRun("shell.cmd", {"argv": [program, "-c", script], **payload})


def test_output_and_result_of_a_command() -> None:
    """Both streams go to the job's output, and their ends into the result."""
    run = shell("echo hi; echo oops >&2")
    result = run.run()
    assert (run.reporter.text("out"), run.reporter.text("err")) == ("hi\n", "oops\n")
    assert (result.exit_status, result.signal, result.truncated) == (0, None, False)
    assert (result.stdout_tail, result.stderr_tail) == ("hi\n", "oops\n")
    assert 0 < result.duration_s < 5


def test_status_other_than_0_is_a_failure_that_keeps_the_result() -> None:
    """The failure says the status and carries output and status."""
    run = shell("echo hi; exit 3")
    with pytest.raises(CommandFailed) as caught:
        run.run()
    assert caught.value.message == "exit status 3"
    assert caught.value.result.exit_status == 3
    assert caught.value.result.stdout_tail == "hi\n"
    assert run.reporter.text("out") == "hi\n"


def test_a_signal_is_named_and_becomes_a_status_as_in_a_shell() -> None:
    """A command that a signal ended has the status 128 + its number."""
    with pytest.raises(CommandFailed, match="SIGKILL") as caught:
        shell("kill -KILL $$").run()
    assert (caught.value.result.exit_status, caught.value.result.signal) == (137, "SIGKILL")


def test_stdin_larger_than_a_pipe_arrives_whole() -> None:
    """Text for standard input is written as fast as the command reads it."""
    run = shell("wc -c", stdin="x" * 1_000_000)
    run.run()
    assert run.reporter.text("out").strip() == "1000000"


@pytest.mark.parametrize("spare", [0, 1, 3, 5])
def test_a_command_for_which_there_are_too_few_descriptors_is_put_off(spare: int) -> None:
    """It is the machine's doing: nothing was started, no try is used up, and the next one may find some."""
    run = shell("echo hi")
    held: list[int] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(spare):
            os.close(held.pop())
        with pytest.raises(JobParked, match="'sh' could not be started: Too many open files") as caught:
            run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in held:
            os.close(each)
    assert "ulimit -n" in caught.value.remedy
    assert run.run().stdout_tail == "hi\n"


def test_a_command_need_not_read_its_stdin() -> None:
    """A command that ends without reading its input succeeds."""
    assert shell("exit 0", stdin="x" * 1_000_000).run().exit_status == 0


def test_without_stdin_the_command_reads_an_empty_file() -> None:
    """A command that reads gets the end of the file at once, not the worker's terminal."""
    run = shell("cat; echo end")
    run.run()
    assert run.reporter.text("out") == "end\n"


def test_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sees what shell_env names, what the payload adds and the job's marks, and nothing else."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    run = JobRun("shell.cmd", {"argv": ["env"], "env": {"GREETING": "hello"}})
    run.run()
    seen = dict(line.split("=", 1) for line in run.reporter.text("out").splitlines())
    assert seen["GREETING"] == "hello"
    assert seen["LANG"] == "C.UTF-8"
    assert seen["BRIDGE_JOB_ID"] == run.job.job_id
    assert seen["BRIDGE_WORKER_ID"] == "test-worker-1"
    assert "OPENAI_API_KEY" not in seen


def test_commands_reach_the_network_as_the_bridge_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and certificates of the environment are passed on, in the spelling in which they are set."""
    expected = {"HTTPS_PROXY": "http://p:3128", "no_proxy": "localhost,[::1]", "SSL_CERT_FILE": "/etc/ca.pem"}
    for name in NETWORK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in expected.items():
        monkeypatch.setenv(name, value)
    run = shell("env")
    run.run()
    found = dict(line.split("=", 1) for line in run.reporter.text("out").splitlines())
    assert {name: found[name] for name in NETWORK_VARIABLES if name in found} == expected


def test_marks_cannot_be_overridden_by_the_payload() -> None:
    """A command cannot hide from cancellation by giving itself another mark."""
    run = JobRun("shell.cmd", {"argv": ["env"], "env": {"BRIDGE_JOB_ID": "other"}})
    run.run()
    assert f"BRIDGE_JOB_ID={run.job.job_id}\n" in run.reporter.text("out")


def test_directory_is_workdesk_or_what_the_payload_says(plain: LoadedSettings, tmp_path: Path) -> None:
    """No directory means WORKDESK, a relative one is inside it, an absolute one is taken as it is."""
    desk = plain.workspace.workdesk
    (desk / "inner").mkdir()
    for given, expected in ((None, desk), ("inner", desk / "inner"), (str(tmp_path), tmp_path)):
        payload = {"argv": ["pwd"]} if given is None else {"argv": ["pwd"], "cwd": given}
        run = JobRun("shell.cmd", payload)
        run.run()
        assert run.reporter.text("out").strip() == str(expected.resolve())


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    """The refusal names the directory."""
    with pytest.raises(JobRefused, match="does not exist") as caught:
        shell("true", cwd=str(tmp_path / "nowhere")).run()
    assert "nowhere" in caught.value.message
    assert caught.value.remedy != ""


def test_missing_program_is_refused() -> None:
    """The refusal names the program and says what to check."""
    with pytest.raises(JobRefused, match="'no-such-program'") as caught:
        JobRun("shell.cmd", {"argv": ["no-such-program"]}).run()
    assert "PATH" in caught.value.remedy


def test_what_cannot_be_executed_is_refused(tmp_path: Path) -> None:
    """A file without execute permission, one that is not a program, an argument with a zero byte."""
    plain_file = tmp_path / "plain"
    plain_file.write_text("no program")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x00\x01\x02")
    binary.chmod(0o755)
    for argv in ([str(plain_file)], [str(binary)], ["echo", "a\0b"]):
        with pytest.raises(JobRefused) as caught:
            JobRun("shell.cmd", {"argv": argv}).run()
        assert caught.value.remedy != ""


def test_a_partial_line_is_passed_on_at_once(tmp_path: Path) -> None:
    """A prompt without a line end is seen while the command still runs."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run = shell(f"printf 'name? '; read answer < {gate}; echo $answer").start()
    eventually(lambda: run.reporter.text("out") == "name? ")
    gate.write_text("Ada\n")
    run.finish()
    assert run.reporter.text("out") == "name? Ada\n"


def test_a_character_cut_in_two_is_put_together(tmp_path: Path) -> None:
    """UTF-8 is decoded across reads."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = (
        "import os, sys; os.write(1, b'a\\xe2\\x82'); open(sys.argv[1]).read(); os.write(1, b'\\xac\\xff!')"
    )
    run = JobRun("shell.cmd", {"argv": [sys.executable, "-S", "-c", script, str(gate)]}).start()
    eventually(lambda: run.reporter.text("out") == "a")
    gate.write_text("go")
    run.finish()
    assert run.reporter.text("out") == "a€\ufffd!"


def test_output_limit_keeps_both_ends(configure: Configure) -> None:
    """Of too much output the first and the last part stay, and one line says what is missing."""
    configure(output_max_bytes=10_000)
    run = shell("echo first; yes | head -c 3000000; echo last")
    result = run.run()
    out, err = run.reporter.text("out"), run.reporter.text("err")
    assert len(out) == 10_000 - NOTE_BYTES
    assert out.startswith("first\ny\n")
    assert out.endswith("y\nlast\n")
    missing = len("first\nlast\n") + 3_000_000 - len(out)
    assert err == f"3ox: {missing} bytes of output omitted here (limit 10000).\n"
    assert result.truncated
    assert result.stdout_tail.endswith("y\nlast\n")


def test_output_just_inside_the_limit_is_whole(configure: Configure) -> None:
    """Exactly as much as there is room for is not too much."""
    configure(output_max_bytes=10_000)
    run = shell(f"yes | head -c {10_000 - NOTE_BYTES}")
    assert not run.run().truncated
    assert run.reporter.text("out") == "y\n" * ((10_000 - NOTE_BYTES) // 2)
    assert run.reporter.text("err") == ""


def test_a_failing_reporter_stops_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the output cannot be written, the actor fails and leaves no process running."""
    run = shell("echo hi; sleep 300")

    def broken(text: str, stream: str) -> None:
        raise JobFailed(f"no room for {text!r} on {stream}")

    monkeypatch.setattr(run.reporter, "output", broken)
    with pytest.raises(JobFailed, match="no room"):
        run.run()
    assert run.processes() == []


def held() -> tuple[int, int]:
    """Count the open file descriptors and the threads of this process."""
    return len(list(Path("/dev/fd").iterdir())), threading.active_count()


def test_nothing_of_a_run_stays_in_the_worker() -> None:
    """File descriptors and threads are given back, also after a failure."""
    shell("true").run()
    before = held()
    for script in ("echo hi", "exit 3", "sleep 300 & exit 0", "cat"):
        run = shell(script, stdin="text")
        with pytest.raises(CommandFailed) if script == "exit 3" else contextlib.nullcontext():
            run.run()
    assert held() == before


def test_works_where_the_system_has_no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a command that holds no pipe is noticed by a thread where pidfd is missing."""
    monkeypatch.delattr(os, "pidfd_open")
    started = time.monotonic()
    run = shell("exec >/dev/null 2>&1; exec sleep 0.1")
    assert run.run().exit_status == 0
    with pytest.raises(CommandFailed, match="exit status 4"):
        shell("echo hi; exit 4").run()
    assert time.monotonic() - started < 5


def test_a_script_without_its_interpreter_is_refused(tmp_path: Path) -> None:
    """The remedy names the first line of the script."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(JobRefused) as caught:
        JobRun("shell.cmd", {"argv": [str(script)]}).run()
    assert "first line" in caught.value.remedy


#: Runs a command in a directory, and prints how it was refused.
REFUSED = """
import sys
from ops.errors import JobRefused
from tests.actors.running import JobRun
try:
    JobRun("shell.cmd", {"argv": ["true"], "cwd": sys.argv[1]}).run()
except JobRefused as error:
    print(error.message)
"""


def test_a_directory_that_may_not_be_entered_is_refused(tmp_path: Path) -> None:
    """The refusal is about the directory, not about the program."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o600)
    argv = [sys.executable, "-c", REFUSED, str(closed)]
    if os.geteuid() == 0:
        # By these two root may enter every directory.
        argv = [require_tool("setpriv"), "--bounding-set=-dac_override,-dac_read_search", *argv]
    environ = clean_environ({"BRIDGE_HOME": str(tmp_path / "home")})
    ran = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.stdout, ran.stderr) == (f"The directory {str(closed)!r} is not accessible.\n", "")
