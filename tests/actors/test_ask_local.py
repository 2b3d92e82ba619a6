"""The offline model, the real one: one process per host, started on demand, stopped when unused."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.interrupts import JobCancelled
from ops.errors import JobFailed, JobRefused
from ops.local_model.client import ModelLease, model_name
from ops.local_model.paths import model_paths, running_models
from ops.processes import find_marked, stop_processes, wait_ended
from ops.workspace import Workspace
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_openai import FakeOpenAI, refuses
from tests.support import ROOT, clean_environ, eventually, run_3ox
from tests.tools import require_library

pytestmark = pytest.mark.usefixtures("no_provider", "engine", "no_model_left")


@pytest.fixture(scope="module")
def engine() -> None:
    """The model's engine can be loaded."""
    require_library("libgomp.so.1")


@pytest.fixture
def no_model_left(workspace: Workspace) -> Iterator[None]:
    """Nothing of the model is left when the test is over."""
    yield
    ModelLease.leave()
    stop_processes(lambda: servers(workspace), grace_s=2.0)


def servers(workspace: Workspace) -> list[int]:
    """Return the processes that serve a model for this workspace."""
    found = []
    for pid in find_marked("BRIDGE_HOME", str(workspace.home)):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 (as ps does)
            if b"ops.local_model.server" in file.read():
                found.append(pid)
    return found


def ask(prompt: str = "Say hello.", **payload: object) -> JobRun:
    """Make a question whose answer does not take long."""
    return JobRun("ask", {"prompt": prompt, "max_tokens": 8, **payload})


def model_pid(workspace: Workspace) -> int:
    """Return the one process there is."""
    (model,) = running_models(workspace)
    assert servers(workspace) == [model["pid"]]
    return int(model["pid"])


def test_it_answers_when_nothing_else_is_configured(configure: Configure, workspace: Workspace) -> None:
    """The answer streams; the result names the model; a hint about its quality is not part of the answer."""
    configure()
    run = ask("Say hello in five words.")
    result = run.run()
    assert result.text != ""
    assert run.reporter.text("out") == result.text
    assert len(run.reporter.pieces) > 2
    assert (result.provider, result.model, result.cost_usd) == ("local", "SmolLM2-135M-Instruct", 0.0)
    assert result.tokens_in > 0
    assert 0 < result.tokens_out <= 8
    assert "small offline model" in result.note
    assert "OPENAI_API_KEY" in result.note
    assert result.note in run.reporter.text("err")
    assert result.note not in result.text
    (model,) = running_models(workspace)
    assert model["name"] == "SmolLM2-135M-Instruct"
    assert 50_000_000 < model["memory_bytes"] < 1_000_000_000


def test_one_process_serves_all(configure: Configure, workspace: Workspace) -> None:
    """Concurrent prompts start one process, later ones find it; it carries no marks of a job."""
    configure()
    runs = [ask(f"What is {number} and one?").start() for number in range(4)]
    assert all(run.finish(60).text for run in runs)
    first = model_pid(workspace)
    assert ask().run().provider == "local"
    assert model_pid(workspace) == first
    assert first not in find_marked("BRIDGE_JOB_ID", runs[0].job.job_id)


def test_it_ends_with_its_last_user(configure: Configure, workspace: Workspace) -> None:
    """A process that has asked keeps it; when the last such process is gone, so is the model, at once."""
    configure()
    ask().run()
    pid = model_pid(workspace)
    program = (
        "from ops.local_model.client import ModelLease; from ops.settings.load import load_settings\n"
        "lease = ModelLease(load_settings()); print(lease.open().model, flush=True); lease.close(); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program],
        env=clean_environ({"BRIDGE_HOME": str(workspace.home)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == b"SmolLM2-135M-Instruct\n"
    ModelLease.leave()
    assert model_pid(workspace) == pid
    other.kill()
    other.wait(10)
    other.stdin.close()
    other.stdout.close()
    assert wait_ended([pid], 10)
    eventually(lambda: not model_paths(workspace).socket.exists())
    assert running_models(workspace) == []


def test_it_ends_when_it_is_idle(configure: Configure, workspace: Workspace) -> None:
    """After the idle time it exits and frees its memory; the next prompt starts it again."""
    configure("[ask.local]\nidle_s = 0.3\n")
    ask().run()
    (model,) = running_models(workspace) or [{"pid": 0}]
    eventually(lambda: not servers(workspace))
    assert ask().run().provider == "local"
    assert model["pid"] not in servers(workspace)


def test_killed_in_the_middle(configure: Configure, workspace: Workspace) -> None:
    """A killed model fails the attempt, which is worth a retry; the retry starts it again."""
    configure()
    run = ask("Tell me a very long story.", max_tokens=500).start()
    eventually(lambda: len(run.reporter.pieces) > 3, 30)
    pid = model_pid(workspace)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(JobFailed, match="local stopped in the middle") as caught:
        run.finish()
    assert not isinstance(caught.value, JobRefused)
    assert wait_ended([pid], 10)
    assert model_paths(workspace).socket.exists()
    assert running_models(workspace) == []
    assert ask().run().provider == "local"
    assert model_pid(workspace) != pid


def test_cancel(configure: Configure, workspace: Workspace) -> None:
    """Cancel ends the answer at once, and the model is free for the next one."""
    configure()
    run = ask("Tell me a very long story.", max_tokens=500).start()
    eventually(lambda: len(run.reporter.pieces) > 3, 30)
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish(2)
    assert ask().run().provider == "local"
    assert len(servers(workspace)) == 1


def test_a_file_that_is_no_model(configure: Configure, workspace: Workspace) -> None:
    """The attempt says which file it is; the process does not stay."""
    (workspace.home / "bad.gguf").write_bytes(b"nothing")
    configure("[ask.local]\nmodel_path = 'bad.gguf'\n")
    with pytest.raises(JobFailed, match=r"bad\.gguf cannot be loaded"):
        ask().run()
    eventually(lambda: not servers(workspace))
    configure("[ask.local]\nmodel_path = 'none.gguf'\n")
    with pytest.raises(JobRefused, match="does not exist") as caught:
        ask().run()
    assert caught.value.remedy == "Correct [ask.local] model_path."


def test_a_system_without_the_library_of_the_engine(
    configure: Configure, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install; the reason given is the loader's own."""
    (tmp_path / "xllamacpp.py").write_text(
        "raise ImportError('libgomp.so.1: cannot open shared object file: No such file or directory')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    configure()
    with pytest.raises(JobFailed, match=r"engine cannot be loaded: libgomp\.so\.1: ") as caught:
        ask().run()
    assert "apt-get install libgomp1" in caught.value.remedy
    eventually(lambda: not servers(workspace))
    environ = clean_environ({"BRIDGE_HOME": str(workspace.home), "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    ran = run_3ox("doctor", environ=environ)
    (line,) = (line for line in ran.stdout.splitlines() if "offline model" in line)
    assert "libgomp1" in line


def test_it_is_nobodys_fallback_unless_listed(configure: Configure, openai: FakeOpenAI) -> None:
    """With a provider configured, a small model does not answer in its place; in the order it does."""
    configure()
    openai.plan(refuses(503, "busy"), refuses(503, "busy"))
    with pytest.raises(JobFailed, match="No provider answers: openai"):
        ask().run()
    configure("[ask]\nproviders = ['openai', 'local']\n")
    result = ask().run()
    assert (result.provider, [item.provider for item in result.fallbacks]) == ("local", ["openai"])


def test_the_first_question_on_a_fresh_machine(workspace: Workspace) -> None:
    """No key, no store, no settings: `3ox ask` answers, says who does, and leaves nothing running."""
    done = run_3ox(
        "ask",
        "Say hello in five words.",
        environ=clean_environ({"BRIDGE_HOME": str(workspace.home)}),
        timeout_s=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != ""
    assert "SmolLM2-135M-Instruct, a small offline model" in done.stderr
    eventually(lambda: not servers(workspace))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("qwen3.gguf", "qwen3"),
        ("v1.5-mini.gguf", "v1.5-mini"),
        ("mini.F16.gguf", "mini"),
    ],
)
def test_names(file: str, name: str, workspace: Workspace) -> None:
    """A model is named after its file, less what says how its numbers are written."""
    assert model_name(workspace.home / file) == name
