"""Projects and policy rules that are written while the API runs count without a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.rest.conftest import SETTINGS, running_api
from tests.rest.test_auth import assert_problem
from tests.rest.test_jobs import shell
from tests.support import eventually

LATE = '[projects.late]\npath = "."\ncommand = ["true"]\npriority = 3\n'
NOT_READ = '"settings.not_reloaded"'
DENIED = SETTINGS.replace('effect = "allow"', 'effect = "deny"')


def task(**fields: Any) -> dict[str, Any]:
    """Return the body of a task for the project that is added later."""
    return {"job_type": "task.custom", "project": "late", "payload": {"task": "see"}, **fields}


def test_what_is_written_while_the_api_runs_counts(own_environ: dict[str, str]) -> None:
    """A project with its priority, the dashboard's filter, a rule; a file with a mistake changes nothing."""
    file = Path(own_environ["BRIDGE_HOME"]) / "3ox.toml"
    with running_api(own_environ) as api:
        call = api.client()
        assert_problem(call("POST", "/v1/jobs", task()), 409, "unknown-project")
        assert "<option>late</option>" not in call("GET", "/jobs").body.decode()
        assert call("POST", "/v1/jobs", shell("true")).status == 202

        file.write_text(f"{DENIED}{LATE}")
        eventually(lambda: call("POST", "/v1/jobs", task()).status == 202, 5.0)
        (job,) = call("GET", "/v1/jobs?project=late").json["jobs"]
        assert (job["priority"], job["status"]) == (3, "held")
        assert "<option>late</option>" in call("GET", "/jobs").body.decode()
        assert_problem(call("POST", "/v1/jobs", shell("true")), 403, "denied")

        file.write_text(f"{SETTINGS}[projects.late")
        eventually(lambda: call("POST", "/v1/jobs", task()).status == 202 and NOT_READ in api.log(), 5.0)
        assert_problem(call("POST", "/v1/jobs", shell("true")), 403, "denied")

        file.write_text(SETTINGS)
        eventually(lambda: call("POST", "/v1/jobs", shell("true")).status == 202, 5.0)
        assert_problem(call("POST", "/v1/jobs", task()), 409, "unknown-project")
        assert api.log().count(NOT_READ) == 1
