"""``task.custom``: the project's command, its placeholder, its progress lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.process.child import CommandFailed
from middleware.interrupts import JobCancelled
from ops.errors import JobRefused
from ops.settings.load import load_settings
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.support import eventually


def project(configure: Configure, path: Path, script: str, *, more: str = "") -> None:
    """Configure the project ``demo`` with a shell script that gets the task as ``$1``."""
    configure(
        f"[projects.demo]\npath = '{path}'\ncommand = ['sh', '-c', '''{script}''', 'sh', '{{task}}']\n{more}"
    )


def task(text: str, name: str = "demo") -> JobRun:
    """Make a job for a project."""
    return JobRun("task.custom", {"task": text}, project=name)


def test_runs_in_the_project_with_the_task(configure: Configure, tmp_path: Path) -> None:
    """The command runs in the project's directory, finds the task, its project and its own variables."""
    project(
        configure,
        tmp_path,
        'pwd; echo "$1"; echo "$BRIDGE_PROJECT/$BRIDGE_TASK/$MODE"',
        more="env = { MODE = 'fast' }",
    )
    run = task("fix it")
    result = run.run()
    assert run.reporter.text("out") == f"{tmp_path.resolve()}\nfix it\ndemo/fix it/fast\n"
    assert result.exit_status == 0


@pytest.mark.parametrize(
    "text", ["$(touch owned); `id` && rm x", "{task} {0} %s \\n", "ünïcode\nline 2", "-rf"]
)
def test_the_task_is_put_in_as_it_is(configure: Configure, tmp_path: Path, text: str) -> None:
    """No shell and no formatting touches the task."""
    configure(
        f"[projects.demo]\npath = '{tmp_path}'\ncommand = ['printf', '%s|', 'do:{{task}}', '{{task}}']\n"
    )
    run = task(text)
    run.run()
    assert run.reporter.text("out") == f"do:{text}|{text}|"
    assert list(tmp_path.glob("owned")) == []


LONG_TASK = """[projects.demo]
path = {path!r}
stdin = "task"
command = [
    "sh", "-c", "cksum < $1; cksum; stat -c %a $BRIDGE_TASK_FILE; echo ${{BRIDGE_TASK-unset}}", "sh",
    "{{task_file}}",
]
"""


def test_a_long_task_comes_in_a_file_and_on_stdin(configure: Configure, tmp_path: Path) -> None:
    """150 kB do not fit into an argument or a variable; the file is private and removed afterwards (P6)."""
    loaded = configure(LONG_TASK.format(path=str(tmp_path)))
    left = loaded.workspace.tasks_dir / "left-by-a-killed-worker"
    left.parent.mkdir()
    left.write_text("old")
    run = task("x" * 150_000)
    run.run()
    first, second, mode, variable = run.reporter.text("out").splitlines()
    assert first == second
    assert (first.split()[1], mode, variable) == ("150000", "600", "unset")
    assert list(loaded.workspace.tasks_dir.iterdir()) == []


def test_progress_lines_become_progress(configure: Configure, tmp_path: Path) -> None:
    """Reports are lifted out of standard output, and everything else stays."""
    project(
        configure,
        tmp_path,
        "echo start; echo ::progress 10 reading; echo '  ::progress 20 no'; echo ::progress 55.5% half;"
        " echo ::progress many; echo ::progress 60 err >&2; printf '::progress 100'",
    )
    run = task("go")
    run.run()
    assert run.reporter.reports == [(10.0, "reading"), (55.5, "half"), (100.0, "")]
    assert run.reporter.text("out") == "start\n  ::progress 20 no\n::progress many\n"
    assert run.reporter.text("err") == "::progress 60 err\n"


def test_progress_comes_while_the_command_runs(configure: Configure, tmp_path: Path) -> None:
    """A report is seen at once, and a cancelled project command leaves nothing."""
    project(configure, tmp_path, "echo ::progress 30 working; sleep 300")
    run = task("go").start()
    eventually(lambda: run.reporter.reports == [(30.0, "working")])
    run.interrupt(JobCancelled)
    with pytest.raises(JobCancelled):
        run.finish()
    assert run.processes() == []


def test_failure_of_the_command(configure: Configure, tmp_path: Path) -> None:
    """The status of the command is the failure, with its result."""
    project(configure, tmp_path, "echo no >&2; exit 7")
    with pytest.raises(CommandFailed, match="exit status 7") as caught:
        task("go").run()
    assert caught.value.result.stderr_tail == "no\n"


def test_unknown_project_names_the_nearest(configure: Configure, tmp_path: Path) -> None:
    """The refusal names the nearest project and the file to add one to."""
    project(configure, tmp_path, "true")
    with pytest.raises(JobRefused, match="'demi'") as caught:
        task("go", "demi").run()
    assert "Did you mean 'demo'?" in caught.value.remedy
    assert "3ox.toml" in caught.value.remedy
    with pytest.raises(JobRefused) as caught:
        task("go", "zzz").run()
    assert "[projects.zzz]" in caught.value.remedy
    assert "mean" not in caught.value.remedy


def test_missing_directory_is_refused(configure: Configure, tmp_path: Path) -> None:
    """The refusal names the project's directory."""
    project(configure, tmp_path / "gone", "true")
    with pytest.raises(JobRefused, match="gone"):
        task("go").run()


def test_a_task_may_call_the_bridge(configure: Configure, tmp_path: Path) -> None:
    """The variables that a task finds are no unknown settings to a bridge that it calls itself."""
    project(configure, tmp_path, "env | grep ^BRIDGE_")
    run = task("go")
    run.run()
    environ = dict(line.split("=", 1) for line in run.reporter.text("out").splitlines())
    task_names = {"BRIDGE_PROJECT", "BRIDGE_TASK", "BRIDGE_TASK_FILE"}
    assert task_names | {"BRIDGE_JOB_ID", "BRIDGE_WORKER_ID"} == environ.keys()
    load_settings(tmp_path, environ=environ)
