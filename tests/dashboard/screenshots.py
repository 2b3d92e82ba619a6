"""``make screenshots``: a real bridge with a mix of jobs, photographed into docs/screenshots.

The jobs are real; the hour before them, which the charts show, is written into the series of samples, since
nobody wants to wait for it.
"""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
from playwright.sync_api import Browser, Page

from ingress.dispatch import Bridge
from middleware.job.metrics import POINTS_MAX, MetricPoint
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.clock.conftest import running_clocks
from tests.dashboard.browser import running_browser
from tests.rest.conftest import Api, running_api
from tests.support import ROOT, RunningValkey, clean_environ, eventually
from tests.workers import running_worker, sweep

PLACE = ROOT / "docs" / "screenshots"
SIZE_MAX_BYTES = 200_000
SETTINGS = """
progress_interval_s = 0.05

[projects.website]
path = "WORKDESK"
command = ["sh", "-c", '''
for n in 10 20 30 40 50 60 64; do echo "::progress $n building page $n of 100"; echo "built page $n"; done; sleep 60
''', "{task}"]

[projects.notes]
path = "WORKDESK"
command = ["sh", "-c", "echo '# Release notes'; echo; echo '- jobs survive the loss of their worker'; sleep 0.4", "{task}"]

[[policy]]
source = "cli"
job_type = "shell.cmd"
command = "rsync *"
effect = "approve"

[[schedule]]
id = "nightly-backup"
cron = "30 2 * * *"
job = { job_type = "task.custom", project = "notes", payload = { task = "back up" } }

[[schedule]]
id = "disk-check"
every = "15s"
job = { job_type = "shell.cmd", payload = { argv = ["df", "-h", "/"] } }
"""  # noqa: E501 (as the file has it)
_TESTS = 'for n in $(seq 1 40); do echo "tests/middleware/test_$n.py ....... ok"; sleep 0.05; done; sleep 45'


def past_hour(bridge: Bridge) -> None:
    """Write the samples of an hour, a calm one with a busy time in the middle."""
    dice = random.Random(7)  # noqa: S311 (a picture, no secret)
    seconds, _ = bridge.store.call("TIME")
    now_ms = int(seconds) * 1000
    key = f"{bridge.reader.keys.prefix}metrics:10s"
    commands: list[tuple[str | int | bytes, ...]] = []
    for number in range(POINTS_MAX["10s"], 0, -1):
        at_ms = now_ms - number * 10_000
        busy = 0.5 + 1.6 * math.exp(-(((number - 150) / 45) ** 2)) + 0.25 * math.sin(number / 17)
        rate = max(0.0, busy * dice.uniform(0.6, 1.4))
        wait, run = 1.5 + 8 * busy * dice.random(), 180 * dice.lognormvariate(0, 0.5)
        point = MetricPoint(
            at_ms=at_ms,
            window_s=10.0,
            states={},
            completed_per_s=round(rate, 2),
            failed_per_s=0.2 if dice.random() < 0.03 else 0.0,
            wait_p50_ms=wait,
            wait_p95_ms=wait * dice.uniform(3, 12),
            run_p50_ms=run,
            run_p95_ms=run * dice.uniform(8, 30),
        )
        commands.append(("XADD", key, f"{at_ms}-0", "point", msgspec.json.encode(point)))
    bridge.store.pipeline(commands)


def mix(bridge: Bridge) -> str:
    """Dispatch a day's work; gives the id of the job whose output is shown."""

    def shell(*argv: str, **fields: int | list[str]) -> str:
        job = make_job("shell.cmd", {"argv": list(argv)}, source="cli", actor="ada", **fields)
        return bridge.submit(job).job_id

    def task(project: str, text: str) -> str:
        job = make_job("task.custom", {"task": text}, project=project, source="cli", actor="ada")
        return bridge.submit(job).job_id

    ended = [
        shell("git", "--version"),
        shell("uname", "-a"),
        task("notes", "release notes for 1.4"),
        shell("sh", "-c", "echo 'no space left on device' >&2; exit 28", max_retries=0),
        shell("du", "-sh", "."),
        task("notes", "summary of the week"),
    ]
    for job_id in ended:
        bridge.follower.wait(job_id, timeout_s=30.0)
    shell("rsync", "-a", "--delete", "site/", "web.example:/srv/site/")
    shown = shell("sh", "-c", _TESTS)
    build = task("website", "rebuild the landing page")
    shell("make", "publish", depends_on=[build])
    bridge.submit(make_job("heartbeat", {"nonce": "canary"}, source="cli", actor="ada"), delay_s=1800)
    eventually(lambda: len(bridge.reader.output(shown)) > 0, 20.0)
    eventually(lambda: bridge.reader.job(build).progress >= 60, 20.0)
    return shown


def photograph(browser: Browser, api: Api, shown: str) -> None:
    """Take the pictures."""
    done = next(
        job.job_id for job in api.bridge.reader.page(status="completed").jobs if job.job_type == "task.custom"
    )
    views = [
        ("overview-light", "/", 1240, 900, "light"),
        ("overview-dark", "/", 1240, 900, "dark"),
        ("overview-tablet", "/", 768, 940, "light"),
        ("overview-phone", "/", 390, 844, "dark"),
        ("jobs", "/jobs", 1240, 640, "light"),
        ("jobs-phone", "/jobs?status=completed", 390, 844, "light"),
        ("job", f"/jobs/{shown}", 1240, 820, "dark"),
        ("job-proof", f"/jobs/{done}", 1240, 820, "light"),
    ]
    token = api.tokens.make("ada", "admin")
    for name, path, width, height, theme in views:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{api.url.rstrip('/')}{path}")
        page.get_by_label("API token").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_selector('[data-live-state="on"]')
        if name == "job-proof":
            page.wait_for_selector(".proof.good")
        save(page, PLACE / f"{name}.png")
        context.close()


def save(page: Page, file: Path) -> None:
    """Take a picture; one that is too large for the repository is an error."""
    page.screenshot(path=file)
    size_bytes = file.stat().st_size
    assert size_bytes < SIZE_MAX_BYTES, f"{file.name} has {size_bytes} bytes"
    sys.stdout.write(f"{file.relative_to(ROOT)}  {size_bytes // 1024} kB\n")


def main() -> None:
    """Run the bridge and take the pictures."""
    PLACE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="3ox-shots-"))
    try:
        with contextlib.ExitStack() as stack:
            store = RunningValkey(
                load_settings(folder / "store", environ={}, overrides={"store_fsync": "no"})
            )
            store.start()
            stack.callback(store.stop)
            home = folder / "home"
            home.mkdir()
            (home / "3ox.toml").write_text(SETTINGS)
            environ = clean_environ(
                {"BRIDGE_HOME": str(home), "BRIDGE_REDIS_URL": store.url, "BRIDGE_API_PORT": "0"}
            )
            stack.callback(sweep, environ)
            api = stack.enter_context(running_api(environ))
            bridge = Bridge(load_settings(environ=environ))
            past_hour(bridge)
            stack.enter_context(running_worker(bridge, environ))
            stack.enter_context(running_clocks(environ, bridge))
            shown = mix(bridge)
            photograph(stack.enter_context(running_browser()), api, shown)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
