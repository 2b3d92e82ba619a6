"""The pages on installation, hosts, metrics, events and extending are accurate."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingress.cli.main import MODULES
from middleware.job.keys import Keys
from middleware.job.schema import JOB_TYPES
from middleware.job.states import State
from ops.settings.load import Settings, load_settings
from tests.deploy.guide import NEW_COMMANDS, new_files
from tests.deploy.settings_page import DOCUMENT, render
from tests.deploy.test_deploy import require_command
from tests.rest.client import Client
from tests.rest.conftest import Api
from tests.support import ROOT, eventually
from tests.tools import require_tool

PAGES = (
    "README",
    "how-to/install",
    "how-to/several-hosts",
    "how-to/add-a-middleware",
    "how-to/add-an-interface",
    "how-to/metrics",
    "how-to/follow-events",
    "reference/configuration",
    "reference/coming-from",
    "tutorial/add-a-job-type",
)
#: Paths of a predecessor.
OLD_PATHS = frozenset({"tests/test_responsive_dispatcher.py"})


def read(page: str) -> str:
    """Return the text of a page, by its path below ``docs``."""
    return (ROOT / "docs" / f"{page}.md").read_text()


def snippets(page: str, language: str) -> list[str]:
    """Return the blocks of one language."""
    found = re.findall(rf"```{language}\n(.*?)```", read(page), re.DOTALL)
    assert found
    return found


def test_the_settings_page_is_up_to_date() -> None:
    """``python -m tests.deploy.settings_page`` would change nothing."""
    assert DOCUMENT.read_text() == render()


def test_every_setting_has_a_meaning() -> None:
    """No row of the settings' tables ends with an empty cell."""
    assert re.findall(r"^\|.*\| +\|$", DOCUMENT.read_text(), re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_path_that_is_named_exists(page: str) -> None:
    """Commands of ``3ox``, links, modules and files exist."""
    text = read(page)
    commands = set(re.findall(r"(?:`|^\$ |^)3ox ([a-z]+)", text, re.MULTILINE))
    assert commands <= MODULES.keys() | NEW_COMMANDS, commands - MODULES.keys()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in link or (ROOT / "docs" / page).parent.joinpath(link).exists(), link
    folders = "ops|middleware|actors|ingress|tests"
    for path in re.findall(rf"\b((?:{folders})/[\w/.-]+\.\w+)\b", text):
        assert path in OLD_PATHS | new_files() or (ROOT / path).exists(), path
    for module in re.findall(r"python -m (tests\.[\w.]+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


def test_the_index_has_every_page() -> None:
    """docs/README.md lists every page, docs/adr/README.md every decision record."""
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")} - {"README.md"}
    records = {page for page in pages if page.startswith("adr/0")}
    assert set(re.findall(r"\]\(([\w/-]+\.md)\)", read("README"))) == pages - records
    assert {f"adr/{name}" for name in re.findall(r"\]\((0[\w-]+\.md)\)", read("adr/README"))} == records


@pytest.mark.parametrize(
    "page", ["reference/configuration", "tutorial/add-a-job-type", "how-to/add-an-interface"]
)
def test_settings_in_the_pages_are_valid(page: str, tmp_path: Path) -> None:
    """Copied into 3ox.toml, they are accepted."""
    texts = snippets(page, "toml")
    assert texts
    for text in texts:
        (tmp_path / "3ox.toml").write_text(text)
        sources = load_settings(tmp_path, environ={}).sources
        accepted = {name for name, source in sources.items() if source == "3ox.toml"}
        assert accepted == tomllib.loads(text).keys()


def test_the_extras_are_those_of_the_package() -> None:
    """The table of extras is complete."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = set(re.findall(r"^\| `(\w+)` \|", read("how-to/install"), re.MULTILINE))
    assert listed == extras.keys() - {"dev"}


def test_both_pages_on_external_stores_agree() -> None:
    """The server directives of both pages are the same."""
    given = dict(line.split(" ", 1) for line in snippets("how-to/several-hosts", "text")[0].splitlines())
    wanted = re.findall(
        r"^\| `([\w-]+)` \| `([\w-]+)` \|", (ROOT / "docs/how-to/operate.md").read_text(), re.MULTILINE
    )
    assert wanted
    assert dict(wanted).items() <= given.items()
    assert f"`lease_s` ({Settings().lease_s:g} s)" in read("how-to/several-hosts")


def test_a_workspace_whose_private_state_is_elsewhere_works(tmp_path: Path, valkey: str) -> None:
    """As docs/how-to/several-hosts.md describes for hosts that share files, ``.3ox`` is a link."""
    (tmp_path / "local").mkdir(mode=0o700)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / ".3ox").symlink_to(tmp_path / "local")
    loaded = load_settings(environ={"BRIDGE_HOME": str(shared), "BRIDGE_REDIS_URL": valkey})
    loaded.workspace.create()
    assert {item.name for item in (tmp_path / "local").iterdir()} >= {"run", "spool", "keys"}
    assert (shared / "IN1N.3OX").is_dir()


#: Everything that the two predecessors had: commands, methods, functions, variables, keys.
OLD_NAMES = """
luzia PROJECT|luzia jobs`|luzia jobs ID`|luzia jobs ID --watch|test_responsive_dispatcher.py
demo_concurrent_tasks.py|ResponseiveDispatcher|dispatch_task()|get_status()|use_cache=False|update_status()
list_jobs()|wait_for_job()|start_background_monitor()|CLIFeedback|job_dispatched()|show_status()|show_jobs_list()
show_concurrent_jobs()|Colors|ProgressBar|ResponseiveOutput|EnhancedDispatcher|dispatch_and_report()
get_status_and_display()|show_jobs_summary()|show_concurrent_summary()|get_enhanced_dispatcher()
enhanced_spawn_claude_agent()|spawn_claude_agent()|track_existing_job()|show_job_status_interactive()
start_background_monitoring()|route_project_task()|route_jobs()|LUZIA_CACHE_TTL|LUZIA_MONITOR_INTERVAL
responsive_dispatcher`|cli_feedback`|dispatcher_enhancements`|`starting`|`running`
LUZIA_MAX_JOBS|LUZIA_JOBS_DIR|/var/lib/luzia/jobs/|/var/log/luz-orchestrator/|run.rb worker|run.rb status
run.rb ask|run.rb serve|job_schema.rb|brains.exe.rb|run.rb`|wait_for_result|station.serve.rb|ask.sh|RPOPLPUSH
queue:jobs|receipts:*|result:*|session:*|worker:*:heartbeat|IN1N.3OX|0UT.3OX|WORKDESK|3ox.log
"""


def test_coming_from_has_every_old_name() -> None:
    """Every name of the predecessors is on the page."""
    text = read("reference/coming-from")
    missing = [
        name for line in OLD_NAMES.split("\n") for name in line.split("|") if name and name not in text
    ]
    assert missing == []


def test_coming_from_names_what_exists() -> None:
    """Options, functions, settings, job types, states and keys on the page exist."""
    text = read("reference/coming-from")
    for line in re.findall(r"`3ox ([a-z]+ ?[^`]*)`", text):
        words = shlex.split(
            line.replace("PID", "1").replace("--timeout S", "--timeout 1").replace(" N", " 1")
        )
        wants_task = words[0] == "run" and words[1:2] != ["PROJECT"]
        require_command([*words, *(["web", "task"] if wants_task else [])])
    for module, name in re.findall(r"`((?:ingress|middleware|actors)(?:\.\w+)+)\.(\w+)`", text):
        assert hasattr(import_module(module), name), f"{module}.{name}"
    settings = set(load_settings(Path("/nowhere"), environ={}).sources) | {"max_retries", "timeout_s"}
    for name in re.findall(r"`(\w+_(?:s|max|bytes|retries|prefix))`", text):
        assert name in settings, name
    types = re.search(r"^\| job types (.*?) \|", text, re.MULTILINE)
    assert types is not None
    named = re.findall(r"`([a-z.]+)`", types[1])
    assert len(named) == 7
    assert set(named) <= set(JOB_TYPES)
    assert set(re.findall(r"`(scheduled|held|retrying|cancelled)`", text)) < set(State)
    keys = Keys("")
    for shown, real in (
        ("queue:jobs", keys.state(State.QUEUED)),
        ("receipts:ID", keys.receipts("ID")),
        ("result:ID", keys.result("ID")),
        ("session:ID", keys.session("ID")),
        ("worker:ID:heartbeat", keys.heartbeat("ID")),
    ):
        assert f"`{shown}`" in text
        assert shown == real


def test_every_metric_is_described(shared_api: Api) -> None:
    """docs/how-to/metrics.md lists exactly the metrics of ``/metrics``."""
    text = shared_api.client("view")("GET", "/metrics").body.decode()
    given = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(text)
    }
    assert set(re.findall(r"`(bridge_\w+)`", read("how-to/metrics"))) == given


def test_the_snippets_of_metrics_run(shared_api: Api) -> None:
    """The request with a trace is accepted, the number of a trace is printed."""
    request = next(text for text in snippets("how-to/metrics", "sh") if "traceparent" in text)
    ran = run_shell(request, shared_api, shared_api.client().token)
    assert '"trace_id":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"' in ran
    for snippet in snippets("how-to/metrics", "python"):
        assert re.fullmatch(r"[0-9a-f]{32}\n", run_python(snippet, shared_api))


def run_shell(script: str, api: Api, token: str | None) -> str:
    """Run a script with the variables URL and TOKEN."""
    require_tool("curl")
    environ = {**os.environ, "URL": api.url, "TOKEN": str(token)}
    ran = subprocess.run(
        ["sh", "-euc", script], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def run_python(snippet: str, api: Api) -> str:
    """Run a snippet as a program on the bridge's host."""
    ran = subprocess.run(
        [sys.executable, "-c", snippet],
        env=api.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@contextmanager
def listening(argv: list[str], api: Api, token: str | None, output: Path) -> Iterator[None]:
    """Run an event client for the duration of a block."""
    with output.open("wb") as file:
        client = subprocess.Popen(
            argv, env={**os.environ, "URL": api.url, "TOKEN": str(token)}, stdout=file, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(client.pid, 15)
        client.wait(10.0)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_the_event_clients_print_events(language: str, shared_api: Api, tmp_path: Path) -> None:
    """Both print the events of a job submitted while they listen, to its final state."""
    text = snippets("how-to/follow-events", language)[0 if language == "python" else 1]
    if language == "sh":
        require_tool("curl")
    argv = [sys.executable, "-c", text] if language == "python" else ["sh", "-c", text]
    if language == "python":
        # Ten lines besides the import and the empty line.
        assert len(text.strip().splitlines()) == 12
    call, output = shared_api.client("submit"), tmp_path / "events"
    watcher: Client = shared_api.client("view")
    jobs: list[str] = []

    def printed() -> bool:
        jobs.append(call("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}}).json["job_id"])
        lines = output.read_text().splitlines()
        completed = [line for line in lines if '"completed"' in line]
        return any(job_id in line for line in completed for job_id in jobs)

    with listening(argv, shared_api, watcher.token, output):
        eventually(printed, 20.0, every_s=0.2)


def test_the_snippet_without_http_runs(shared_api: Api) -> None:
    """It prints an event, or that there was none for a second."""
    (snippet,) = snippets("how-to/follow-events", "python")[1:]
    assert run_python(snippet, shared_api).count("\n") == 1
