"""The folder 0UT.3OX."""

from __future__ import annotations

import json

import pytest

from actors.egress import outbox
from ops.errors import JobFailed
from tests.egress.conftest import JOB_ID, Configured, outcome


def test_a_page_and_its_receipt_are_written(configured: Configured) -> None:
    """Under the day of the end (UTC), as Markdown, with its receipt; repeating it writes the same."""
    loaded = configured("")
    for _ in range(2):
        done = outbox.deliver(outcome(), loaded, "")
    assert done.place == f"0UT.3OX/2026-11-21/{JOB_ID}.md"
    folder = loaded.workspace.outbox / "2026-11-21"
    assert sorted(item.name for item in folder.iterdir()) == [f"{JOB_ID}.md", f"{JOB_ID}.receipt.json"]
    page = (folder / f"{JOB_ID}.md").read_text()
    assert page.startswith("# ask completed\n")
    assert "- Submitted by: bob (cli)\n" in page
    assert "```\nHow are you?\n```" in page
    assert page.endswith("## Result\n\nFine, **thanks**.\n")
    assert json.loads((folder / f"{JOB_ID}.receipt.json").read_text())["receipt_id"] == f"r-{JOB_ID}"


def test_json_is_written_on_demand(configured: Configured) -> None:
    """The whole job, one document."""
    loaded = configured('[deliver]\nformat = "json"\n')
    done = outbox.deliver(outcome(), loaded, "")
    document = json.loads((loaded.workspace.home / done.place).read_text())
    assert document["event"] == "job.completed"
    assert document["job"]["result"] == {"text": "Fine, **thanks**."}


def test_what_a_command_wrote_cannot_leave_its_block(configured: Configured) -> None:
    """Backticks in the output make the fence longer."""
    loaded = configured("")
    wrote = {"exit_status": 0, "stdout_tail": "```\n# not a heading\n"}
    sent = outcome(job_type="task.custom", project="web", payload={"task": "x"}, result=wrote)
    page = (loaded.workspace.home / outbox.deliver(sent, loaded, "").place).read_text()
    assert "````\n```\n# not a heading\n````\n" in page


def test_a_failure_says_why_and_what_to_do(configured: Configured) -> None:
    """A job that did not complete has a page, too."""
    loaded = configured("")
    page = (loaded.workspace.home / outbox.deliver(outcome("failed"), loaded, "").place).read_text()
    assert page.startswith("# ask failed\n")
    assert "AskFailed: No provider answered.\nAsk again." in page


def test_other_results_are_shown_as_json(configured: Configured) -> None:
    """A result without a text of its own."""
    loaded = configured("")
    sent = outcome(job_type="ingest.file", payload={"name": "a.pdf"}, result={"action": "EDIT"})
    page = (loaded.workspace.home / outbox.deliver(sent, loaded, "").place).read_text()
    assert '```json\n{\n  "action": "EDIT"\n}\n```' in page


def test_a_folder_that_cannot_be_written_to_is_tried_again(configured: Configured) -> None:
    """The error names the place, and nothing half is left."""
    loaded = configured("")
    (loaded.workspace.outbox / "2026-11-21").write_text("in the way")
    with pytest.raises(JobFailed, match="2026-11-21 cannot be written"):
        outbox.deliver(outcome(), loaded, "")
