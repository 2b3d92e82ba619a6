"""What is in ``ops/deploy``: well formed, and naming only what exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from ingress.cli.main import MODULES, PROGRAM, cli
from ops.errors import SettingsError
from ops.settings.load import load_settings
from tests.rest.conftest import Api
from tests.support import ROOT, eventually
from tests.tools import require_tool

DEPLOY = ROOT / "ops" / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: Commands that 3ox-door@.service is for.
DOORS = ("serve", "rest", "clock", "telegram")


def require_command(arguments: list[str]) -> None:
    """Fail unless ``3ox`` takes these arguments; nothing is run."""
    assert arguments[0] in MODULES
    frame = click.Context(cli, info_name=PROGRAM, **cli.context_settings)
    command = cli.get_command(frame, arguments[0])
    assert command is not None
    command.make_context(arguments[0], arguments[1:], parent=frame)


class Unit(ConfigParser):
    """A unit file; its keys keep their case."""

    def __init__(self, file: Path) -> None:
        super().__init__(interpolation=None, strict=True)
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read_string(file.read_text())


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_starts_a_command_that_exists(file: Path) -> None:
    """And gives it longer to stop than its jobs may take."""
    service = Unit(file)["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/3ox")
    for instance in DOORS if "%i" in arguments else ("1",):
        require_command([instance if item == "%i" else item for item in arguments])
    settings = load_settings(Path("/nowhere"), environ={}).settings
    needs_s = settings.rest.shutdown_s if "door" in file.name else settings.worker_shutdown_timeout_s
    assert float(service["TimeoutStopSec"]) > needs_s + settings.kill_grace_s
    assert service["RestartPreventExitStatus"] == str(SettingsError.exit_code)
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is for Linux")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` has nothing to say."""
    program = tmp_path / "3ox"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in UNITS:
        text = file.read_text().replace("/opt/cmd-bridge/bin/3ox", str(program))
        (tmp_path / file.name.replace("@", "@1")).write_text(text)
        assert set(Unit(file).sections()) == {"Unit", "Service", "Install"}
    verify = [require_tool("systemd-analyze"), "verify", "--man=no"]
    units = [str(file) for file in sorted(tmp_path.glob("*.service"))]
    done = subprocess.run(
        [*verify, *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert ours == []


def test_the_environment_example_is_valid(tmp_path: Path) -> None:
    """Every variable in it is a setting, also those that are commented out."""
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (DEPLOY / "environment.example").read_text(), re.MULTILINE)
    environ = {name: value for name, value in lines if value}
    assert len(environ) > 8
    loaded = load_settings(environ={**environ, "BRIDGE_HOME": str(tmp_path)})
    assert {name for name, _ in lines if name.startswith("BRIDGE_")} - {"BRIDGE_HOME"} <= {
        f"BRIDGE_{name.upper()}" for name in loaded.sources
    }


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file, its variables filled in."""
    text = (DEPLOY / "compose.yaml").read_text()
    filled = re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", r"a-\1", text)
    document: dict[str, Any] = yaml.safe_load(filled)
    return document


def test_the_compose_file_holds_together(compose: dict[str, Any], tmp_path: Path) -> None:
    """Commands, settings, files and volumes that it names are there."""
    services = compose["services"]
    for name in ("bridge", "worker"):
        service = services[name]
        require_command(service["command"])
        environ = {key: value for key, value in service["environment"].items() if value is not None}
        loaded = load_settings(environ={**environ, "BRIDGE_HOME": str(tmp_path)})
        assert loaded.settings.redis_url == "redis://:a-STORE_PASSWORD@store:6379/0"
        handed_on = [key for key, value in service["environment"].items() if value is None]
        known = {f"BRIDGE_{item.upper()}" for item in loaded.sources}
        assert {key for key in handed_on if key.startswith("BRIDGE_")} <= known
        build = service["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).exists()
        # The private state holds sockets and locks of one process space: no two containers may share it.
        assert any(volume.endswith("/.3ox") for volume in service["volumes"])
    mounts = [volume for service in services.values() for volume in service["volumes"]]
    assert {mount.split(":")[0] for mount in mounts if ":" in mount} == set(compose["volumes"])
    assert mounts.count("state:/workspace/.3ox") == 1
    store = services["store"]["command"]
    assert store[store.index("--maxmemory-policy") + 1] == "noeviction"
    assert store[store.index("--requirepass") + 1] == "a-STORE_PASSWORD"


def test_the_image_is_made_of_what_is_there() -> None:
    """Every path that is copied exists, every extra is one of ours."""
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        for path in line.split()[:-1]:
            assert (ROOT / path).exists(), path
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.search(r"/src\[(.*?)\]", text)
    assert extras is not None
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    command = re.search(r'HEALTHCHECK .* CMD \["3ox", (.*?)\]', text)
    assert command is not None
    require_command(json.loads(f"[{command[1]}]"))


def expressions() -> Iterator[str]:
    """Return every query of the dashboard and of the alerts."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def test_every_query_asks_for_what_there_is(shared_api: Api) -> None:
    """Names and labels of the queries are those that ``/metrics`` gives after a job has run."""
    call = shared_api.client()
    job = call("POST", "/v1/jobs", {"job_type": "heartbeat", "payload": {}}).json
    call("GET", f"/v1/jobs/{job['job_id']}?wait=20")
    there: dict[str, set[str]] = {}

    def reported() -> bool:
        text = call("GET", "/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            there.setdefault(family.name, set())
            if family.type == "counter":
                there.setdefault(f"{family.name}_total", set())
            for sample in family.samples:
                there.setdefault(sample.name, set()).update(sample.labels)
        return "type" in there.get("bridge_jobs_ended_total", ())

    eventually(reported)
    # Given by Prometheus itself, and by labels that appear with the first such event.
    later = {"bridge_job_recoveries_total": {"type", "source"}}
    found = 0
    for expression in expressions():
        by = {name for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(", ")}
        for name, _, labels in re.findall(r"(bridge_\w+)(\{([^}]*)\})?", expression):
            assert name in there, name
            wanted = set(re.findall(r"(\w+)=", labels)) | by
            assert wanted - {"job", "le"} <= there[name] | later.get(name, set()), (name, wanted)
            found += 1
    assert found > 20


def test_the_dashboard_is_whole() -> None:
    """Panels have ids of their own, places that do not overlap, and no fixed data source."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        rows = range(place["y"], place["y"] + place["h"])
        cells = {(column, row) for column in columns for row in rows}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    assert {item["name"] for item in dashboard["templating"]["list"]} == {"datasource", "job"}


def test_prometheus_is_sent_to_the_right_place(shared_api: Api) -> None:
    """The path is that of the metrics, which a token of scope view may read; the rules are where it looks."""
    document = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (scrape,) = document["scrape_configs"]
    assert scrape["authorization"]["type"] == "Bearer"
    assert shared_api.client("view")("GET", scrape["metrics_path"]).status == 200
    assert scrape["static_configs"][0]["targets"] == ["127.0.0.1:7777"]
    assert document["rule_files"] == ["/etc/prometheus/3ox-alerts.yml"]
