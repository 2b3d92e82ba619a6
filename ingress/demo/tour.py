"""The tour of ``3ox demo``: one job through each interface, and what the bridge records about it."""

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

from ingress.core.api_address import known_url
from ingress.core.terminal import note
from ingress.core.text import one_line, short_id, since
from ingress.core.webhook_signature import SIGNATURE_HEADER, signature_of
from ingress.demo.bot_api import BotApi
from ingress.demo.temporary_bridge import CHAT_ID, HOOK, TemporaryBridge, temporary_bridge
from middleware.job.records import JobRecord
from ops.errors import BridgeError, JobFailed, WaitTimeout
from ops.settings.load import LoadedSettings

#: Limit for one step, from the request to the end of its job.
STEP_TIMEOUT_S = 15.0
_REQUEST_TIMEOUT_S = 10.0
_SHOWN_MAX = 160
_LOG_LINES = 8
_FILE = "# Minutes\n\nThe bridge was presented to the team.\n"


class StepResult(Struct, frozen=True):
    """Result of a step.

    Attributes:
        job: The finished job.
        answer: What the interface answered.
    """

    job: JobRecord
    answer: str = ""


class TourStep(Struct, frozen=True):
    """Use of one interface.

    Attributes:
        interface: Name of the interface.
        action: What a user would do.
        run: Does it.
    """

    interface: str
    action: str
    run: Callable[[], StepResult]


class Tour:
    """The steps of the tour.

    Args:
        running: The bridge.
        bot: Server of the Bot API; None if python-telegram-bot is not installed.
    """

    def __init__(self, running: TemporaryBridge, bot: BotApi | None) -> None:
        self._running = running
        self._bot = bot

    def steps(self) -> list[TourStep]:
        """Return all steps."""
        found = [
            TourStep("drop folder", "cp minutes.md IN1N.3OX/", self._drop),
            TourStep(
                "REST", 'curl -H "Authorization: Bearer ..." .../v1/jobs -d \'{"job_type": ...}\'', self._rest
            ),
            TourStep("webhook", f"POST /v1/hooks/{HOOK}, signed as GitHub does", self._webhook),
            TourStep("Telegram", "message to the bot: What can you do?", self._telegram),
            TourStep("shell", "3ox shell, line: what were we talking about?", self._shell),
            TourStep("command line", "3ox sh -- uname -sr", self._command_line),
            TourStep("scheduler", '[[schedule]] every = "2s"', self._clock),
        ]
        return [step for step in found if self._bot is not None or step.interface != "Telegram"]

    def _drop(self) -> StepResult:
        inbox = self._running.loaded.workspace.inbox
        draft = inbox / "minutes.part"
        draft.write_text(_FILE)
        draft.rename(inbox / "minutes.md")
        return StepResult(self._wait_for(lambda job: job.source == "station"))

    def _rest(self) -> StepResult:
        body = msgspec.json.encode({"job_type": "ask", "payload": {"prompt": "What did you get over REST?"}})
        receipt = self._post("v1/jobs", body, {"Authorization": f"Bearer {self._running.token}"})
        return StepResult(self._wait(receipt["job_id"]), f"202, receipt {receipt['receipt_id']}")

    def _webhook(self) -> StepResult:
        body = msgspec.json.encode({"name": "team"})
        signature = signature_of(self._running.hook_secret.encode(), body)
        receipt = self._post(
            f"v1/hooks/{HOOK}", body, {SIGNATURE_HEADER: f"sha256={signature}", "X-GitHub-Delivery": "demo-1"}
        )
        return StepResult(self._wait(receipt["job_id"]), f"202, receipt {receipt['receipt_id']}")

    def _telegram(self) -> StepResult:
        bot = self._bot
        if bot is None:
            raise JobFailed("The bot is not running.")
        bot.say(CHAT_ID, "What can you do?")
        job = self._wait_for(lambda job: job.source == "telegram")
        bot.wait(lambda: any("You asked" in text for text in bot.texts(CHAT_ID)), STEP_TIMEOUT_S)
        return StepResult(job, f"the bot answered: {bot.texts(CHAT_ID)[-1]}")

    def _shell(self) -> StepResult:
        _, output = self._running.run(
            "shell", stdin="What did you get from the shell?\nwhat were we talking about?\n"
        )
        return StepResult(self._wait_for(lambda job: job.source == "shell"), output.strip())

    def _command_line(self) -> StepResult:
        _, output = self._running.run("sh", "--", "uname", "-sr")
        return StepResult(self._wait_for(lambda job: job.source == "cli"), output.strip())

    def _clock(self) -> StepResult:
        return StepResult(self._wait_for(lambda job: job.source == "clock" and job.job_type == "shell.cmd"))

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (our own address)
            known_url(self._running.loaded) + path,
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

    def _wait(self, job_id: str) -> JobRecord:
        return self._running.bridge.follower.wait(job_id, timeout_s=STEP_TIMEOUT_S)

    def _wait_for(self, matches: Callable[[JobRecord], bool]) -> JobRecord:
        """Return the first matching job when it has finished.

        Args:
            matches: Returns whether a job is the one.

        Raises:
            WaitTimeout: No such job finished in time.
        """
        bridge = self._running.bridge
        deadline_s = time.monotonic() + STEP_TIMEOUT_S
        after = bridge.follower.newest_event()
        events = bridge.follower.follow_all(after=after, idle_s=1.0)
        while True:
            found = [job for job in bridge.reader.page(limit=50).jobs if matches(job)]
            if found and found[-1].is_final:
                return found[-1]
            if time.monotonic() > deadline_s:
                raise WaitTimeout(f"The job did not finish within {STEP_TIMEOUT_S:g} s.")
            next(events)


def run_tour(loaded: LoadedSettings) -> int:
    """Run the tour and clean up.

    Args:
        loaded: The user's settings, of which only the store is used.

    Returns:
        0 if all jobs completed, else 1.

    Raises:
        StartFailed: The bridge did not start.
    """
    began_s = time.monotonic()
    store = "the embedded store" if loaded.embedded_store else "the store of your settings"
    click.echo(f"Starting a bridge in a temporary workspace, on {store} ...")
    if find_spec("telegram") is None:
        note("Telegram is skipped: python-telegram-bot is not installed. pip install 'cmd-bridge[telegram]'")
        failed = _show(loaded, None)
    else:
        with BotApi() as bot:
            failed = _show(loaded, bot)
    click.echo(f"\nThe bridge is stopped and removed. The tour took {time.monotonic() - began_s:.0f} s.")
    for interface, reason in failed.items():
        note(f"{interface}: {reason}")
    return 1 if failed else 0


def _show(loaded: LoadedSettings, bot: BotApi | None) -> dict[str, str]:
    """Run all steps; return the reasons of those that failed, by interface."""
    failed: dict[str, str] = {}
    address = None if bot is None else (bot.url, bot.token)
    with temporary_bridge(loaded.settings.redis_url, address) as running:
        click.echo(f"The bridge is up in {running.loaded.workspace.home}\n")
        for number, step in enumerate(Tour(running, bot).steps(), start=1):
            click.echo(f"{number} {step.interface}: {step.action}")
            try:
                result = step.run()
            except (BridgeError, TimeoutError) as error:
                failed[step.interface] = str(error)
                click.echo(f"    failed: {one_line(str(error))}\n")
                continue
            if result.job.status != "completed":
                failed[step.interface] = result.job.reason
            _show_result(running, result)
        _show_records(running, failed)
    return failed


def _show_result(running: TemporaryBridge, result: StepResult) -> None:
    job, receipt = result.job, running.bridge.reader.receipt(result.job.job_id)
    for line in result.answer.splitlines():
        click.echo(f"    | {_cut(line)}")
    click.echo(
        f"    job {short_id(job.job_id)}: {job.job_type}, {job.status} after"
        f" {since(job.created_at, job.completed_at)}; source {job.source}, trust {job.trust}"
    )
    moves = " > ".join(move.status for move in receipt.transitions)
    digest = "" if receipt.result_sha256 is None else f", result {receipt.result_sha256[:12]}"
    click.echo(f"    receipt {receipt.receipt_id}: {moves}; input {receipt.input_sha256[:12]}{digest}")
    output = "".join(chunk.text for chunk in running.bridge.reader.output(job.job_id, limit=20))
    shown = output if output.strip() else msgspec.json.encode(job.result).decode()
    click.echo(f"    output {_cut(shown)}\n")


def _show_records(running: TemporaryBridge, failed: dict[str, str]) -> None:
    """Show what the bridge has recorded: the verified ledger, files, the log."""
    code, output = running.run("verify")
    click.echo(f"3ox verify\n    {_cut(output)}\n")
    if code != 0:
        failed["verify"] = _cut(output)
    home = running.loaded.workspace.home
    click.echo("Files")
    for folder in (running.loaded.workspace.workdesk, running.loaded.workspace.outbox):
        for file in sorted(path for path in folder.rglob("*") if path.is_file())[:12]:
            click.echo(f"    {one_line(str(file.relative_to(home)))}")
    click.echo("\n3ox.log, last job events")
    for line in _log_lines(running):
        click.echo(f"    {line}")


def _log_lines(running: TemporaryBridge) -> deque[str]:
    lines: deque[str] = deque(maxlen=_LOG_LINES)
    with running.loaded.workspace.log_file.open("rb") as file:
        for raw in file:
            record = msgspec.json.decode(raw, type=dict[str, Any])
            if str(record.get("event", "")).startswith("job."):
                job_id = short_id(str(record.get("job_id", "")))
                lines.append(_cut(f"{record['at']} {record.get('process')} {record['event']} {job_id}"))
    return lines


def _cut(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _SHOWN_MAX else f"{line[: _SHOWN_MAX - 1]}…"
