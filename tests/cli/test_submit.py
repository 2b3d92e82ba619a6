"""``submit`` and ``types`` with a user's own actor, carried by a real ``dramatiq my_jobs``."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingress.cli.payload_arguments import converted
from ingress.dispatch import connect
from ops.settings.load import load_settings
from tests.cli.support import Cli
from tests.support import bridge_environ, eventually
from tests.workers import sweep, worker_unit

MY_JOBS = '''
import os
import time

import dramatiq

from actors import broker
from actors.context import current_job


@dramatiq.actor(queue_name="media", max_retries=0, time_limit=60_000)
def thumbnail(path: str, size: int = 128, sharp: bool = False, tags: list[str] | None = None) -> dict:
    """Make a small picture."""
    current_job().log(f"making {path}")
    if path == "bad":
        raise ValueError("no such picture")
    while path.startswith("/") and not os.path.exists(path):
        current_job().check_cancelled()
        time.sleep(0.01)
    return {"path": path, "size": size, "sharp": sharp, "tags": tags}


@dramatiq.actor(queue_name="media")
def caption(path: str) -> str:
    """Name a picture."""
    current_job().write("no line end")
    return f"A {path}"
'''


@pytest.fixture(scope="module")
def pool(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line of a bridge whose only worker carries ``thumbnail``."""
    home = tmp_path_factory.mktemp("pool")
    (home / "my_jobs.py").write_text(MY_JOBS)
    environ = bridge_environ(home, valkey)
    bridge = connect(load_settings(environ=environ))
    cli = Cli(environ)
    with worker_unit(environ, module="my_jobs"):
        eventually(lambda: "thumbnail" in bridge.reader.published_types(), 30.0)
        eventually(lambda: cli("types", "thumbnail", "--json").json["workers"], 30.0)
        yield cli
        cli.end()
    sweep(environ)


def test_submit_converts_values_by_the_schema_of_the_type(pool: Cli) -> None:
    """With --wait it prints the id, then the output, then the result, and exits as the job did."""
    code, out, err = pool(
        *(
            "submit",
            "thumbnail",
            "path=12",
            "size=64",
            "sharp=true",
            'tags=["a"]',
            "--wait",
            "--priority",
            "2",
        ),
    )
    assert (code, err) == (0, "")
    job_id, *output = out.splitlines()
    job = pool.job(job_id)
    assert job["result"] == {"path": "12", "size": 64, "sharp": True, "tags": ["a"]}
    assert output == ["making 12", json.dumps(job["result"], separators=(",", ":"))]
    assert (job["job_type"], job["priority"], job["source"]) == ("thumbnail", 2, "cli")


def test_a_text_result_is_printed_as_it_is(pool: Cli) -> None:
    """On a line of its own; with --json, stdout is one document."""
    assert pool("submit", "caption", "path=cat", "--wait").out.splitlines()[1:] == ["no line end", "A cat"]
    assert pool("submit", "caption", "path=cat", "--wait", "--json").json["result"] == "A cat"


def test_named_arguments_replace_those_of_the_payload(pool: Cli) -> None:
    """Without --wait it prints the id, with --json the receipt."""
    receipt = pool("submit", "thumbnail", "--payload", '{"path": "a", "size": 1}', "size=2", "--json").json
    assert pool.job(receipt["job_id"])["payload"] == {"path": "a", "size": 2}
    plain = pool("submit", "thumbnail", "path=a")
    assert (plain.code, plain.err) == (0, "")
    assert pool.wait_for_status(plain.out.strip(), "completed")["result"]["path"] == "a"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["thumbnail", "pth=a.png"], "'pth'. Did you mean 'path'?"),
        (["thumbnail"], "The argument 'path' is missing."),
        (["thumbnail", "path=a", "size=big"], "The argument 'size' is not valid"),
        (["thumbnail", "path"], "'path' is not of the form NAME=VALUE."),
        (["thumbnail", "path=a", "path=b"], "The argument 'path' is given twice."),
        (["thumbnail", "--payload", "[1]"], "--payload is not a JSON object"),
        (["thumbnail", "path=a", "--if-failed", "run"], "--if-failed needs --after."),
        (["thumbnial", "path=a"], "Did you mean 'thumbnail'?"),
        (["shell.cmd", "argvv=[]"], "Unknown field 'payload.argvv'"),
        (["shell.cmd", 'argv=["ls"]', "--queue", "media"], "go to the queue jobs."),
    ],
)
def test_submit_refuses_what_does_not_fit(pool: Cli, arguments: list[str], complaint: str) -> None:
    """Exit code 2, one line that names the field or the nearest name, and no job."""
    before = pool("jobs", "--json").json["summary"]
    code, out, err = pool("submit", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    assert pool("jobs", "--json").json["summary"].keys() == before.keys()


def test_a_failed_job_is_the_exit_code_of_wait(pool: Cli) -> None:
    """The error is explained on stderr; logs, receipt, retry and lists work as for a built-in type."""
    code, out, err = pool("submit", "thumbnail", "path=bad", "--wait")
    assert code == 1
    assert "no such picture" in err
    job_id = out.splitlines()[0]
    assert pool("logs", job_id).out == "making bad\n"
    assert pool("receipt", job_id, "--json").json["job_type"] == "thumbnail"
    listed = pool("jobs", "--type", "thumbnail", "--status", "failed", "--json").json["jobs"]
    assert [job["job_id"] for job in listed] == [job_id]
    assert pool("retry", "--all", "--type", "thumbnail").code == 0
    assert pool.wait_for_status(job_id, "failed")["attempt"] == 2


def test_a_running_job_of_a_users_type_is_cancelled(pool: Cli, tmp_path: Path) -> None:
    """``cancel`` waits for its end."""
    job_id = pool("submit", "thumbnail", f"path={tmp_path / 'never'}").out.strip()
    pool.wait_for_status(job_id, "processing")
    assert pool("cancel", job_id).code == 0
    assert pool.job(job_id)["status"] == "cancelled"


def test_a_filter_by_an_unknown_type_names_the_nearest(pool: Cli) -> None:
    """For users' types too."""
    code, _, err = pool("jobs", "--type", "thumbnial")
    assert code == 2
    assert "Unknown job type 'thumbnial'. Did you mean 'thumbnail'?" in err


def test_a_job_that_no_worker_carries_says_so(pool: Cli) -> None:
    """In lists, in the job, and on stderr while it is waited for; there is a worker, but not of that type."""
    process = pool.start("submit", "heartbeat", "--wait")
    assert process.stdout is not None
    assert process.stderr is not None
    job_id = process.stdout.readline().strip()
    assert "no worker carries heartbeat" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert pool.job(job_id)["reason"] == "no worker carries heartbeat"
    listed = pool("jobs", "--status", "queued", "--json").json["jobs"]
    assert [(job["job_id"], job["reason"]) for job in listed] == [(job_id, "no worker carries heartbeat")]
    assert "no worker carries heartbeat" in pool("jobs").out
    elsewhere = pool("submit", "thumbnail", "path=a", "--queue", "images").out.strip()
    assert pool.job(elsewhere)["reason"] == "no worker on queue images carries thumbnail"
    assert pool("cancel", job_id, elsewhere).code == 0


def test_types_lists_built_in_types_and_those_of_workers(pool: Cli) -> None:
    """Origin, queue and number of workers of each; one type in full, with its schema."""
    found = {item["name"]: item for item in pool("types", "--json").json["types"]}
    assert found["shell.cmd"]["origin"] == "built-in"
    assert found["shell.cmd"]["workers"] == 0
    own = found["thumbnail"]
    assert (own["origin"], own["queue"], own["workers"]) == ("my_jobs", "media", 1)
    assert (own["summary"], own["defaults"]["max_retries"]) == ("Make a small picture.", 0)
    assert pool("types", "thumbnail", "--json").json == own
    assert own["schema"]["properties"]["size"] == {"type": "integer", "default": 128}
    lines = pool("types").out.splitlines()
    assert lines[0].split() == ["NAME", "ORIGIN", "QUEUE", "WORKERS", "WHAT"]
    assert lines[-1].split()[:4] == ["thumbnail", "my_jobs", "media", "1"]
    shown = pool("types", "thumbnail").out
    assert "path       string        required" in shown
    assert "size       integer       128" in shown
    assert "tags       array | null  null" in shown
    assert '"additionalProperties": false' in shown
    assert "0: no worker carries it" in pool("types", "ask").out


def test_types_refuses_an_unknown_name(pool: Cli) -> None:
    """With the nearest one."""
    code, out, err = pool("types", "thumbnial")
    assert (code, out) == (2, "")
    assert "Did you mean 'thumbnail'?" in err


def test_types_without_a_store(storeless: Cli) -> None:
    """The built-in ones are known, and the number of workers is not."""
    code, out, _ = storeless("types")
    assert code == 0
    assert out.splitlines()[1].split()[:4] == ["ask", "built-in", "llm", "-"]
    assert storeless("types", "ask", "--json").json["workers"] is None
    assert storeless("types", "thumbnail").code == 3
    assert storeless("submit", "thumbnail", "path=a").code == 3


def test_status_shows_what_workers_carry(pool: Cli) -> None:
    """The queues that they consume, and the types that they carry."""
    (worker,) = pool("status", "--json").json["workers"]
    assert (worker["queues"], worker["types"]) == (["media"], ["caption", "thumbnail"])
    assert " media   caption thumbnail" in pool("status").out


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("7", {"type": "integer"}, 7),
        ("7.5", {"type": "integer"}, "7.5"),
        ("7", {"type": "number"}, 7),
        ("true", {"type": "integer"}, "true"),
        ("true", {"type": "boolean"}, True),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ("[1]", {"type": ["array", "null"]}, [1]),
        ('{"a": 1}', {"$ref": "#/$defs/Box"}, {"a": 1}),
        ("7", {"enum": [7, 8]}, 7),
        ("7", {}, "7"),
        ("[", {"type": "array"}, "["),
    ],
)
def test_conversion_of_values(text: str, schema: dict[str, Any], value: object) -> None:
    """A value that is not JSON of the type stays a text, and the validation names it."""
    found = converted(text, schema, {"$defs": {"Box": {"type": "object"}}})
    assert (found, type(found)) == (value, type(value))
