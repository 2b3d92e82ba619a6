"""What ``3ox demo`` does: one job through every door, and what the bridge keeps of it."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click
import msgspec
from msgspec import Struct

from ingress.cli.shared import note
from ingress.core.api_address import known_url
from ingress.core.text import one_line, short_id, since
from ingress.core.webhook_signature import SIGNATURE_HEADER, signature_of
from ingress.demo.bot_api import BotApi
from ingress.demo.stage import CHAT_ID, HOOK, Stage, open_stage
from middleware.job.records import JobRecord
from ops.errors import BridgeError, JobFailed, WaitTimeout
from ops.settings.load import LoadedSettings

#: Bound on one door, from knocking to the end of its job.
DOOR_TIMEOUT_S = 15.0
_REQUEST_TIMEOUT_S = 10.0
_SHOWN_MAX = 160
_LOG_LINES = 8
_FILE = "# Minutes\n\nThe bridge was shown to everybody.\n"


class Visit(Struct, frozen=True):
    """What came of knocking at a door.

    Attributes:
        job: How it ended.
        said: What the door answered.
    """

    job: JobRecord
    said: str = ""


class Door(Struct, frozen=True):
    """A way in.

    Attributes:
        name: What people call it.
        how: What is done there, as a user would do it.
        knock: Does it, and gives what came of it.
    """

    name: str
    how: str
    knock: Callable[[], Visit]


class Tour:
    """The doors of one bridge.

    Args:
        stage: The bridge.
        bot: Its Telegram; None if the bot's library is not installed.
    """

    def __init__(self, stage: Stage, bot: BotApi | None) -> None:
        self._stage = stage
        self._bot = bot

    def doors(self) -> list[Door]:
        """Give all doors."""
        found = [
            Door("drop folder", "cp minutes.md IN1N.3OX/", self._drop),
            Door(
                "REST", 'curl -H "Authorization: Bearer ..." .../v1/jobs -d \'{"job_type": ...}\'', self._rest
            ),
            Door("webhook", f"POST /v1/hooks/{HOOK}, signed as GitHub does", self._webhook),
            Door("Telegram", "a message to the bot: What can you do?", self._telegram),
            Door("shell", "3ox shell, a line: what were we talking about?", self._shell),
            Door("command line", "3ox sh -- uname -sr", self._command_line),
            Door("clock", '[[schedule]] every = "2s"', self._clock),
        ]
        return [door for door in found if self._bot is not None or door.name != "Telegram"]

    def _drop(self) -> Visit:
        inbox = self._stage.loaded.workspace.inbox
        draft = inbox / "minutes.part"
        draft.write_text(_FILE)
        draft.rename(inbox / "minutes.md")
        return Visit(self._await(lambda job: job.source == "station"))

    def _rest(self) -> Visit:
        body = msgspec.json.encode({"job_type": "ask", "payload": {"prompt": "What came by REST?"}})
        receipt = self._post("v1/jobs", body, {"Authorization": f"Bearer {self._stage.token}"})
        return Visit(self._end(receipt["job_id"]), f"202, receipt {receipt['receipt_id']}")

    def _webhook(self) -> Visit:
        body = msgspec.json.encode({"name": "everybody"})
        signature = signature_of(self._stage.hook_secret.encode(), body)
        receipt = self._post(
            f"v1/hooks/{HOOK}", body, {SIGNATURE_HEADER: f"sha256={signature}", "X-GitHub-Delivery": "demo-1"}
        )
        return Visit(self._end(receipt["job_id"]), f"202, receipt {receipt['receipt_id']}")

    def _telegram(self) -> Visit:
        bot = self._bot
        if bot is None:
            raise JobFailed("there is no bot.")
        bot.say(CHAT_ID, "What can you do?")
        job = self._await(lambda job: job.source == "telegram")
        bot.wait(lambda: any("You asked" in text for text in bot.texts(CHAT_ID)), DOOR_TIMEOUT_S)
        return Visit(job, f"the bot wrote: {bot.texts(CHAT_ID)[-1]}")

    def _shell(self) -> Visit:
        _, said = self._stage.run(
            "shell", stdin="What came through the shell?\nwhat were we talking about?\n"
        )
        return Visit(self._await(lambda job: job.source == "shell"), said.strip())

    def _command_line(self) -> Visit:
        _, said = self._stage.run("sh", "--", "uname", "-sr")
        return Visit(self._await(lambda job: job.source == "cli"), said.strip())

    def _clock(self) -> Visit:
        return Visit(self._await(lambda job: job.source == "clock" and job.job_type == "shell.cmd"))

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (our own address)
            known_url(self._stage.loaded) + path,
            data=body,
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_S) as reply:  # noqa: S310
                return msgspec.json.decode(reply.read(), type=dict[str, Any])
        except urllib.error.HTTPError as error:
            raise JobFailed(f"{path} answered {error.code}: {error.read()[:500].decode()}") from error
        except OSError as error:
            raise JobFailed(f"{path} did not answer: {error}") from error

    def _end(self, job_id: str) -> JobRecord:
        return self._stage.bridge.follower.wait(job_id, timeout_s=DOOR_TIMEOUT_S)

    def _await(self, ours: Callable[[JobRecord], bool]) -> JobRecord:
        """Give the first job of a kind when it has ended; woken by the store's events.

        Raises:
            WaitTimeout: None has ended in time.
        """
        bridge = self._stage.bridge
        deadline_s = time.monotonic() + DOOR_TIMEOUT_S
        after = bridge.follower.newest_event()
        events = bridge.follower.follow_all(after=after, idle_s=1.0)
        while True:
            found = [job for job in bridge.reader.page(limit=50).jobs if ours(job)]
            if found and found[-1].is_final:
                return found[-1]
            if time.monotonic() > deadline_s:
                raise WaitTimeout(f"no such job has ended within {DOOR_TIMEOUT_S:g} s.")
            next(events)


def run_tour(loaded: LoadedSettings) -> int:
    """Show a bridge on real jobs, and clean up.

    Args:
        loaded: The user's settings; of them only the store counts.

    Returns:
        0 if each door's job is completed, else 1.

    Raises:
        StartFailed: The bridge did not come up.
    """
    began_s = time.monotonic()
    store = "the embedded store" if loaded.embedded_store else "the store of your settings"
    click.echo(f"A bridge in a temporary workspace, on {store}: store, worker, station, REST, clock ...")
    if find_spec("telegram") is None:
        note(
            "python-telegram-bot is not installed, that door stays closed; pip install 'cmd-bridge[telegram]'"
        )
        failed = _show(loaded, None)
    else:
        with BotApi() as bot:
            failed = _show(loaded, bot)
    click.echo(f"\nStopped and removed. The tour took {time.monotonic() - began_s:.0f} s.")
    for name, why in failed.items():
        note(f"{name}: {why}")
    return 1 if failed else 0


def _show(loaded: LoadedSettings, bot: BotApi | None) -> dict[str, str]:
    """Go through all doors; gives those that failed, and why."""
    failed: dict[str, str] = {}
    address = None if bot is None else (bot.url, bot.token)
    with open_stage(loaded.settings.redis_url, address) as stage:
        click.echo(f"... is up in {stage.loaded.workspace.home}\n")
        for number, door in enumerate(Tour(stage, bot).doors(), start=1):
            click.echo(f"{number} {door.name}: {door.how}")
            try:
                visit = door.knock()
            except (BridgeError, TimeoutError) as error:
                failed[door.name] = str(error)
                click.echo(f"    failed: {one_line(str(error))}\n")
                continue
            if visit.job.status != "completed":
                failed[door.name] = visit.job.reason
            _show_visit(stage, visit)
        _show_rest(stage, failed)
    return failed


def _show_visit(stage: Stage, visit: Visit) -> None:
    job, receipt = visit.job, stage.bridge.reader.receipt(visit.job.job_id)
    for line in visit.said.splitlines():
        click.echo(f"    | {_cut(line)}")
    click.echo(
        f"    job {short_id(job.job_id)}: {job.job_type}, {job.status} after"
        f" {since(job.created_at, job.completed_at)}; source {job.source}, trust {job.trust}"
    )
    moves = " > ".join(move.status for move in receipt.transitions)
    result = "" if receipt.result_sha256 is None else f", result {receipt.result_sha256[:12]}"
    click.echo(f"    receipt {receipt.receipt_id}: {moves}; input {receipt.input_sha256[:12]}{result}")
    output = "".join(chunk.text for chunk in stage.bridge.reader.output(job.job_id, limit=20))
    shown = output if output.strip() else msgspec.json.encode(job.result).decode()
    click.echo(f"    output {_cut(shown)}\n")


def _show_rest(stage: Stage, failed: dict[str, str]) -> None:
    """Show what is left beside the jobs: files, the ledger's proof, the log."""
    code, said = stage.run("verify")
    click.echo(f"3ox verify\n    {_cut(said)}\n")
    if code != 0:
        failed["verify"] = _cut(said)
    home = stage.loaded.workspace.home
    click.echo("Files")
    for folder in (stage.loaded.workspace.workdesk, stage.loaded.workspace.outbox):
        for file in sorted(path for path in folder.rglob("*") if path.is_file())[:12]:
            click.echo(f"    {one_line(str(file.relative_to(home)))}")
    click.echo("\n3ox.log, the last jobs")
    for line in _log_lines(stage):
        click.echo(f"    {line}")


def _log_lines(stage: Stage) -> deque[str]:
    lines: deque[str] = deque(maxlen=_LOG_LINES)
    with stage.loaded.workspace.log_file.open("rb") as file:
        for raw in file:
            record = msgspec.json.decode(raw, type=dict[str, Any])
            if str(record.get("event", "")).startswith("job."):
                job_id = short_id(str(record.get("job_id", "")))
                lines.append(_cut(f"{record['at']} {record.get('process')} {record['event']} {job_id}"))
    return lines


def _cut(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _SHOWN_MAX else f"{line[: _SHOWN_MAX - 1]}…"
