"""Commands that the kernel cannot start are refused when they are submitted (P6)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from middleware.broker.admission_rules import ARGUMENT_MAX_BYTES, AdmissionRules
from middleware.broker.type_directory import TypeDirectory
from middleware.job.schema import Job, make_job
from ops.errors import InvalidJob
from ops.settings.load import load_settings

PROJECTS = """
[projects.agent]
path = "/"
command = ["agent", "--task={task}"]
[projects.file]
path = "/"
command = ["agent", "{task_file}"]
[projects.stdin]
path = "/"
command = ["agent"]
stdin = "task"
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> AdmissionRules:
    """The rules of a bridge with three projects."""
    home: Path = tmp_path_factory.mktemp("rules")
    (home / "3ox.toml").write_text(PROJECTS)
    return AdmissionRules(load_settings(home, environ={}).settings, TypeDirectory())


def task(project: str, size: int) -> Job:
    """Make a task of some bytes."""
    return make_job("task.custom", {"task": "x" * size}, project=project)


def test_a_task_that_does_not_fit_into_an_argument_is_refused(rules: AdmissionRules) -> None:
    """The remedy names the two ways to pass it; both take it, and the longest that fits is accepted."""
    with pytest.raises(InvalidJob, match=f"150007 bytes; the limit is {ARGUMENT_MAX_BYTES}") as caught:
        rules.prepare(task("agent", 150_000))
    assert "{task_file} instead of {task}" in caught.value.remedy
    assert 'stdin = "task"' in caught.value.remedy
    for accepted in (
        task("agent", ARGUMENT_MAX_BYTES - len("--task=")),
        task("file", 150_000),
        task("stdin", 150_000),
    ):
        assert rules.prepare(accepted).job.job_id == accepted.job_id


@pytest.mark.parametrize(
    "payload",
    [
        {"argv": ["echo", "é" * 70_000]},
        {"argv": ["true"], "env": {"A": "x" * 150_000}},
        {"argv": ["true", *["x" * 100] * 20_000]},
    ],
)
def test_a_command_that_the_kernel_cannot_start_is_refused(
    rules: AdmissionRules, payload: dict[str, object]
) -> None:
    """An argument, a variable, or all arguments together are too long; stdin is not limited by it."""
    large = AdmissionRules(
        msgspec.structs.replace(rules.settings, payload_max_bytes=4_000_000), TypeDirectory()
    )
    with pytest.raises(InvalidJob, match="the limit is") as caught:
        large.prepare(make_job("shell.cmd", payload))
    assert caught.value.remedy == "Pass it on standard input or in a file."
    large.prepare(make_job("shell.cmd", {"argv": ["cat"], "stdin": "x" * 3_000_000}))
