"""What each group of entry points requires, in processes that find a package in PYTHONPATH."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import ROOT, bridge_environ

MODULE = """
import dramatiq
from ops.errors import JobRefused

class First(dramatiq.Middleware): after = "Retries"
class Second(First): pass
class Third(dramatiq.Middleware): before = "Receipts"
class Fourth(dramatiq.Middleware): pass
class Both(dramatiq.Middleware): before = after = "Retries"

def accepts(outcome, settings): return settings["where"]
def fails(outcome, settings): raise ValueError("no route")
def refuses(outcome, settings): raise JobRefused("It never will.")

class Incomplete: name = "incomplete"
def incomplete(settings): return Incomplete()
def fails_to_make(settings): raise KeyError("url")
"""
ENTRY_POINTS = """
[cmd_bridge.middleware]
a = contracts:First
b = contracts:Second
c = contracts:Third
d = contracts:Fourth
both = contracts:Both
not_one = contracts:MISSING

[cmd_bridge.destinations]
accepts = contracts:accepts
fails = contracts:fails
refuses = contracts:refuses

[cmd_bridge.providers]
incomplete = contracts:incomplete
fails_to_make = contracts:fails_to_make
bad/name = contracts:incomplete
"""
SETTINGS = """
[destinations.accepts]
where = "there"

[destinations.fails]

[destinations.other]
plugin = "refuses"
types = ["ask"]
when = ["failed"]
"""


def in_process(code: str, folder: Path, settings: str = "") -> Any:
    """Run code where the package is installed, and return the JSON that it prints."""
    package = folder / "package"
    info = package / "contracts-2.0.dist-info"
    info.mkdir(parents=True)
    (package / "contracts.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contracts\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    home = folder / "home"
    home.mkdir()
    environ: Mapping[str, str] = bridge_environ(home, "redis://127.0.0.1:1", settings)
    ran = subprocess.run(
        [sys.executable, "-c", "import json\n" + code],
        env={**environ, "PYTHONPATH": f"{package}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_middleware_is_placed_in_order(tmp_path: Path) -> None:
    """Before, after or innermost; several at one place by name; what has no place is broken."""
    code = """
from actors import broker
from ops.plugins import broken_plugins
names = [type(item).__name__ for item in broker.middleware]
print(json.dumps([names, {item.name: item.reason for item in broken_plugins("middleware")}]))
"""
    names, broken = in_process(code, tmp_path)
    at = names.index("Receipts")
    assert names[at - 1 : at + 4] == ["Third", "Receipts", "Retries", "First", "Second"]
    assert names[-1] == "Fourth"
    assert broken.keys() == {"both", "not_one"}
    assert "give one of them" in broken["both"]
    assert "has no attribute 'MISSING'" in broken["not_one"]


def test_a_destination_delivers_fails_or_refuses(tmp_path: Path) -> None:
    """Any exception is worth a retry, but JobRefused; the place is what it returns."""
    code = """
from actors.context import settings
from actors.egress.plugin import deliver
from middleware.destinations import Destinations
from middleware.job.schema import make_job
from ops.errors import JobFailed
found = {}
for name in ("accepts", "fails", "other", "missing"):
    try:
        found[name] = deliver(None, settings(), name).place
    except JobFailed as error:
        found[name] = [type(error).__name__, str(error)]
destinations = Destinations(settings().settings)
found["ask"] = destinations.of(make_job("ask", {"prompt": "x"}))
found["heartbeat"] = destinations.of(make_job("heartbeat", {}))
print(json.dumps(found))
"""
    found = in_process(code, tmp_path, SETTINGS)
    assert found["accepts"] == "there"
    assert found["fails"] == ["JobFailed", "The destination 'fails' failed: ValueError: no route"]
    assert found["other"][0] == found["missing"][0] == "JobRefused"
    every = [
        f"plugin:{name}/{state}"
        for name in ("accepts", "fails")
        for state in ("completed", "failed", "cancelled")
    ]
    assert found["heartbeat"] == ",".join(every)
    assert found["ask"] == ",".join(["outbox/*", *every, "plugin:other/failed"])


def test_a_provider_has_to_be_complete(tmp_path: Path) -> None:
    """One that lacks an attribute, or cannot be made, fails the job with the reason."""
    code = """
from actors.context import settings
from actors.llm.provider_selection import choose
from ops.errors import JobRefused
from ops.plugins import broken_plugins
found = {item.name: item.reason for item in broken_plugins("providers")}
for name in ("incomplete", "fails_to_make", "bad/name"):
    try:
        choose(settings(), name)
    except JobRefused as error:
        found[name] = str(error)
print(json.dumps(found))
"""
    found = in_process(code, tmp_path)
    assert "it has no attribute model, free, note, answer_max_tokens, stream" in found["incomplete"]
    assert "KeyError: 'url'" in found["fails_to_make"]
    assert "the name must be up to 64 letters" in found["bad/name"]


def test_wrong_settings_of_a_destination_are_an_error(tmp_path: Path) -> None:
    """The keys that the bridge uses are checked when the settings are read."""
    code = """
from ops.errors import SettingsError
from ops.settings.load import load_settings
try:
    load_settings()
except SettingsError as error:
    print(json.dumps(str(error)))
"""
    found = in_process(code, tmp_path, '[destinations.slack]\nwhen = ["done"]\n')
    assert "[destinations.slack] of 3ox.toml is not valid" in found
    assert "when" in found


def test_secrets_of_plug_ins_are_masked(tmp_path: Path) -> None:
    """Values under names of secrets are masked in listings; names of variables and other values are not."""
    code = """
from ops.settings.load import load_settings
from ops.settings.rows import rows_of
rows = {row.name: row.value for row in rows_of(load_settings())}
print(json.dumps([rows["destinations"], rows["ask.plugins"]]))
"""
    settings = (
        '[destinations.slack]\ntoken = "t0ken-1"\ntoken_env = "SLACK"\n'
        'rooms = [{ api_key = "k", name = "n" }]\n'
        '[ask.plugins.own]\npassword = "x"\nurl = "http://user:pw@host"\n'
    )
    destinations, providers = in_process(code, tmp_path, settings)
    masked = "********"
    assert destinations["slack"] == {
        "token": masked,
        "token_env": "SLACK",
        "rooms": [{"api_key": masked, "name": "n"}],
    }
    assert providers["own"] == {"password": masked, "url": "http://user:***@host"}


def test_a_module_of_the_settings_is_imported_from_the_workspace(tmp_path: Path) -> None:
    """After everything that is installed; a module that fails leaves none of its actors."""
    code = """
import pathlib, sys
home = pathlib.Path(__import__("os").environ["BRIDGE_HOME"])
(home / "mine.py").write_text('''
import dramatiq, helper
from actors import broker
@dramatiq.actor
def good(): ...
''')
(home / "helper.py").write_text("")
(home / "contracts.py").write_text("raise SystemExit('shadowed')")
(home / "half.py").write_text('''
import dramatiq
from actors import broker
@dramatiq.actor
def half(): ...
raise ValueError("half done")
''')
from actors import broker
from ops.plugins import broken_plugins
import contracts
broken = [list(item) for item in broken_plugins("actors")]
print(json.dumps([sorted(set(broker.actors) & {"good", "half"}), broken]))
"""
    actors, broken = in_process(code, tmp_path, 'actors = ["mine", "half"]\n')
    assert actors == ["good"]
    assert broken == [["actors", "half", "3ox.toml", "ValueError: half done"]]


def test_a_pool_of_its_own_leaves_the_actors_of_plug_ins_to_the_main_pool(tmp_path: Path) -> None:
    """``dramatiq my_jobs`` consumes the queues of my_jobs; ``dramatiq actors`` those of all others."""
    code = """
import dramatiq, pathlib, os
(pathlib.Path(os.environ["BRIDGE_HOME"]) / "mine.py").write_text('''
import dramatiq
from actors import broker
@dramatiq.actor(queue_name="plugged")
def plugged(): ...
''')
from actors import broker
found = [sorted(broker.get_declared_queues())]
dramatiq.actor(queue_name="own", actor_name="own")(lambda: None)
found.append(sorted(broker.get_declared_queues()))
broker.carries_built_in = True
found.append(sorted(broker.get_declared_queues()))
print(json.dumps(found))
"""
    without_own, own_pool, both = in_process(code, tmp_path, 'actors = ["mine"]\n')
    assert without_own == ["deliver", "jobs", "llm", "plugged"]
    assert own_pool == ["own"]
    assert both == ["deliver", "jobs", "llm", "own", "plugged"]
