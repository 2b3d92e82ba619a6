"""``jobs``, ``logs`` and ``receipt``: lists, one job in full, live views."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cli.support import Cli

EVIL = "evil \x1b[31mred\x1b]0;title\x07 \u202ertl\rover"


def queue(cli: Cli, project: str, task: str) -> str:
    """Submit a task and return its job id."""
    return cli("run", project, task).out.strip().rpartition(":")[2]


def test_list_in_a_pipe_is_plain_and_newest_first(quiet: Cli) -> None:
    """In a pipe the list is aligned plain text with a heading and a summary."""
    ids = [queue(quiet, "demo", f"task {number}") for number in range(3)]
    lines = quiet("jobs").out.splitlines()
    assert lines[0].split() == ["ID", "JOB", "STATE", "DONE", "AGE", "WHAT", "REASON"]
    assert [line.split()[0] for line in lines[1:4]] == [job_id[-8:] for job_id in reversed(ids)]
    assert all("task.custom/demo" in line and "queued" in line for line in lines[1:4])
    starts = {line.index(word) for line, word in zip(lines[1:4], ("task 2", "task 1", "task 0"), strict=True)}
    assert starts == {lines[0].index("WHAT")}
    assert lines[4] == "Processing: 0  Queued: 3  Completed: 0  Failed: 0"


def test_list_as_json(quiet: Cli) -> None:
    """``--json`` prints jobs, summary and cursor in the documented form."""
    job_id = queue(quiet, "demo", "x")
    page = quiet("jobs", "--json").json
    assert [job["job_id"] for job in page["jobs"]] == [job_id]
    assert page["next"] is None
    assert page["summary"] == {
        "queued": 1,
        "scheduled": 0,
        "held": 0,
        "processing": 0,
        "retrying": 0,
        "completed": 0,
        "failed": 0,
        "cancelled": 0,
    }
    promised = """job_id trace_id job_type status source actor project session_id priority progress
        progress_message attempt crashes max_retries worker_id payload result error created_at queued_at
        started_at completed_at due_at depends_on receipt_id reason"""
    assert set(promised.split()) <= set(page["jobs"][0])


def test_empty_list_is_its_summary(quiet: Cli) -> None:
    """Without jobs, only the summary is printed."""
    assert quiet("jobs").out == "Processing: 0  Queued: 0  Completed: 0  Failed: 0\n"
    assert quiet("jobs", "--source", "rest").out == "0 jobs, filtered by source.\n"
    assert quiet("jobs", "--all").out == "In the store: Processing: 0  Queued: 0  Completed: 0  Failed: 0\n"


def test_filters(quiet: Cli) -> None:
    """Project, type and status filter the list; project and type the summary, too."""
    demo, website = queue(quiet, "demo", "a"), queue(quiet, "website", "b")
    shell = quiet("sh", "--detach", "--", "true").out.strip()
    quiet("cancel", demo)

    def listed(*arguments: str) -> set[str]:
        return {job["job_id"] for job in quiet("jobs", "--json", *arguments).json["jobs"]}

    assert listed("--project", "website") == {website}
    assert listed("--type", "shell.cmd") == {shell}
    assert listed("--status", "cancelled") == {demo}
    assert listed("--type", "task.custom", "--status", "queued") == {website}

    def summary(*arguments: str) -> dict[str, int]:
        found: dict[str, int] = quiet("jobs", "--json", *arguments).json["summary"]
        return {state: count for state, count in found.items() if count}

    assert summary() == {"queued": 2, "cancelled": 1}
    assert summary("--project", "website") == {"queued": 1}
    assert summary("--project", "demo") == {"cancelled": 1}
    assert summary("--project", "none") == {}
    assert summary("--type", "shell.cmd") == {"queued": 1}
    assert summary("--type", "task.custom", "--project", "demo", "--status", "queued") == {"cancelled": 1}


def test_pages_follow_one_another(quiet: Cli) -> None:
    """``--limit`` and ``--cursor`` page through all jobs, each once; ``--all`` lists them at once."""
    ids = [queue(quiet, "demo", f"task {number}") for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        more = () if cursor is None else ("--cursor", cursor)
        page = quiet("jobs", "--json", "--limit", "2", *more).json
        seen += [job["job_id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert [job["job_id"] for job in quiet("jobs", "--json", "--all").json["jobs"]] == ids[::-1]
    assert "--cursor" in quiet("jobs", "--limit", "2").out


def test_a_cursor_of_no_page_is_refused(quiet: Cli) -> None:
    """A cursor that is not the ``next`` of such a page is wrong use; the error names the remedy."""
    job_id = queue(quiet, "demo", "x")
    for garbage in ("garbage", "", job_id[:-1], f"5:{job_id}"):
        code, out, err = quiet("jobs", "--cursor", garbage)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "is not valid for this list. Use 'next' of the previous page" in err
    for garbage in ("garbage", job_id, f"nan:{job_id}", "5:x"):
        assert quiet("jobs", "--status", "queued", "--cursor", garbage).code == 2


def test_job_text_cannot_play_with_the_terminal(quiet: Cli) -> None:
    """Control sequences, direction marks and carriage returns in a task are escaped."""
    job_id = queue(quiet, "demo", EVIL)
    for arguments in (("jobs",), ("jobs", job_id)):
        for text in (quiet(*arguments).out, quiet.on_terminal(*arguments, columns=140)[1]):
            assert "\\x1b[31mred" in text or "\\u001b[31mred" in text
            assert "\x1b]0;" not in text
            assert "\x1b[31m" not in text
            assert "\u202e" not in text
    assert quiet.job(job_id)["payload"]["task"] == EVIL


def test_list_on_a_terminal_fits_it(quiet: Cli) -> None:
    """On a terminal ids, states and ages stay whole; long text is cut, so that a job is one line."""
    job_id = queue(quiet, "demo", "a very long task " * 20)
    code, drawn = quiet.on_terminal("jobs", columns=80)
    line = next(line for line in drawn.splitlines() if "task.custom/demo" in line)
    assert code == 0
    assert job_id[-8:] in line
    assert "queued" in line
    assert "…" in line
    assert drawn.count("very long") == 1


def test_one_job_in_full(bridge: Cli) -> None:
    """``jobs ID`` shows state, attempts, result and error of a job."""
    code, out, _ = bridge("run", "demo", "fail", "--wait")
    job_id = out.splitlines()[0].rpartition(":")[2]
    assert code == 1
    text = bridge("jobs", job_id[-8:]).out
    for expected in (
        job_id,
        "task.custom",
        "failed",
        "exit status 1",
        "ATTEMPT",
        '"task":"fail"',
        "through cli",
    ):
        assert expected in text
    job = bridge.job(job_id)
    assert job["error"]["message"] == "exit status 1"
    assert {"type", "message", "remedy"} <= set(job["error"])
    assert [attempt["status"] for attempt in job["attempts"]] == ["failed"]


def test_ids_may_be_shortened_to_a_unique_part(quiet: Cli) -> None:
    """A unique prefix or suffix names the job; an ambiguous one is wrong use, an unknown one ends with 4."""
    first, second = queue(quiet, "demo", "a"), queue(quiet, "demo", "b")
    common = 0
    while first[common] == second[common]:
        common += 1
    assert quiet.job(first[: common + 1])["job_id"] == first
    assert quiet.job(second[-8:])["job_id"] == second
    code, out, err = quiet("jobs", first[:common])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert first in err
    assert second in err
    code, out, err = quiet("jobs", "zzzzzzzzz")
    assert (code, out, err.count("\n")) == (4, "", 1)


def test_logs_show_what_was_written_so_far(bridge: Cli, tmp_path: Path) -> None:
    """``logs`` prints the output so far; ``logs -f`` follows it until the job ends."""
    gate = tmp_path / "gate"
    job_id = queue(bridge, "demo", f"wait for {gate}")
    follower = bridge.start("logs", job_id, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "waiting\n"
    assert bridge("logs", job_id).out == "waiting\n"
    gate.touch()
    out, err = follower.communicate(timeout=15)
    assert (follower.returncode, out, err) == (0, f"done: wait for {gate}\n", "")
    document = bridge("logs", job_id, "--json").json
    assert document["job_id"] == job_id
    assert "".join(piece["text"] for piece in document["output"]) == f"waiting\ndone: wait for {gate}\n"
    assert {piece["stream"] for piece in document["output"]} == {"out"}


def test_logs_are_raw_in_a_pipe_and_safe_on_a_terminal(bridge: Cli) -> None:
    """Control sequences in output are passed on to a pipe and escaped on a terminal."""
    code, out, _ = bridge("run", "demo", "say \x1b[31mred", "--wait")
    job_id = out.splitlines()[0].rpartition(":")[2]
    assert code == 0
    assert bridge("logs", job_id).out == "done: say \x1b[31mred\n"
    drawn = bridge.on_terminal("logs", job_id)[1]
    assert drawn.splitlines() == ["done: say \\x1b[31mred"]


def test_logs_follow_stops_on_ctrl_c(quiet: Cli) -> None:
    """Ctrl-C ends ``logs -f`` with 130 and leaves the job alone."""
    job_id = queue(quiet, "demo", "x")
    process = quiet.start("jobs", job_id, "--watch")
    assert process.stdout is not None
    assert "queued" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")
    assert quiet.job(job_id)["status"] == "queued"


def test_receipt_follows_the_job(bridge: Cli) -> None:
    """The receipt shows each transition, as text and as JSON."""
    job_id = bridge("sh", "--json", "--", "true").json["job_id"]
    receipt = bridge("receipt", job_id, "--json").json
    assert [move["status"] for move in receipt["transitions"]] == ["queued", "processing", "completed"]
    assert len(receipt["input_sha256"]) == len(receipt["result_sha256"]) == 64
    text = bridge("receipt", job_id).out
    assert receipt["input_sha256"] in text
    assert "processing" in text


def test_logs_raw_lets_the_terminal_obey(bridge: Cli) -> None:
    """With ``--raw`` the output reaches the terminal as the job wrote it."""
    job_id = bridge("run", "demo", "say \x1b[31mred", "--wait").out.splitlines()[0].rpartition(":")[2]
    assert bridge.on_terminal("logs", job_id, "--raw")[1].splitlines() == ["done: say \x1b[31mred"]


def test_purge_deletes_dead_letters_for_good(bridge: Cli) -> None:
    """``jobs purge`` deletes failed jobs only; states that are not final are refused."""
    failed, completed = queue(bridge, "demo", "fail"), queue(bridge, "demo", "good")
    bridge("wait", failed, completed)
    code, out, _ = bridge("jobs", "purge")
    assert (code, out.split(maxsplit=1)[1]) == (0, "failed job deleted.\n") or "failed jobs deleted" in out
    assert bridge("jobs", failed).code == 4
    assert bridge.job(completed)["status"] == "completed"
    assert bridge("jobs", "purge", "--status", "queued").code == 2
