"""The package ``examples/plugin``, built and installed beside ours in a fresh environment, in ``3ox up``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import ROOT, bridge_environ, eventually
from tests.workers import sweep

#: Much faster than pip, where `make` has installed it.
UV = Path(sys.executable).parent / "uv"
EXAMPLE = ROOT / "examples" / "plugin"
GUIDE = ROOT / "docs" / "how-to" / "write-a-plugin.md"
#: Entry points of a package with one mistake in each group.
BROKEN = """\
[cmd_bridge.actors]
no_actors = json
unimportable = broken_plugin.missing

[cmd_bridge.ingress]
rest = broken_plugin:serve
unserved = broken_plugin:VALUE

[cmd_bridge.destinations]
journal = broken_plugin:deliver

[cmd_bridge.providers]
openai = broken_plugin:make
no_arguments = broken_plugin:serve_nothing

[cmd_bridge.middleware]
displaced = broken_plugin:Displaced
"""
BROKEN_MODULE = """\
import dramatiq

VALUE = 1

def serve(daemon): ...
def serve_nothing(): ...
def make(settings): ...
def deliver(outcome, settings): ...

class Displaced(dramatiq.Middleware):
    before = "Retires"
"""
#: Group and name of each, and a part of the reason.
REASONS = {
    ("actors", "no_actors"): "declares no actor on the bridge's broker",
    ("actors", "unimportable"): "ModuleNotFoundError: No module named 'broken_plugin.missing'",
    ("ingress", "rest"): "the bridge itself has one of this name",
    ("ingress", "unserved"): "1 must be a function (daemon)",
    ("destinations", "journal"): "bridge-example 1.0 has one of the same name",
    ("providers", "openai"): "the bridge itself has one of this name",
    ("providers", "no_arguments"): "must take (settings)",
    ("middleware", "displaced"): "before = 'Retires' must be one of: ",
}
MY_JOBS = """
import dramatiq
from actors import broker

@dramatiq.actor
def greet(name: str) -> str:
    return f"Hello, {name}"
"""


class Installed(NamedTuple):
    """An environment in which our package and the example are installed.

    Attributes:
        bin_dir: Its programs.
        home: The workspace of a running bridge.
        environ: The environment of the bridge's processes.
    """

    bin_dir: Path
    home: Path
    environ: Mapping[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``3ox``."""
        return subprocess.run(
            [str(self.bin_dir / "3ox"), *arguments],
            env=dict(self.environ),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Return what a command prints with ``--json``."""
        ran = self.run(*arguments, "--json")
        assert ran.stdout, ran.stderr
        return json.loads(ran.stdout)

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log with an event."""
        lines = (json.loads(line) for line in (self.home / "3ox.log").read_text().splitlines())
        return [line for line in lines if line["event"] == event]


def build(source: Path, to: Path) -> None:
    """Build a wheel."""
    wheel = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(to), str(source)]
    uv_wheel = ["build", "--quiet", "--wheel", "--out-dir", str(to), str(source)]
    argv = [str(UV), *uv_wheel] if UV.exists() else [sys.executable, "-m", "pip", *wheel]
    subprocess.run(argv, check=True, timeout=300)


def install(python: Path, *wheels: Path) -> None:
    """Install these wheels and what they depend on."""
    pip = [str(UV), "pip"] if UV.exists() else [str(python), "-m", "pip"]
    which = ["--python", str(python)] if UV.exists() else []
    subprocess.run([*pip, "install", "--quiet", *which, *map(str, wheels)], check=True, timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A running bridge with the example, and with the package that has only mistakes."""
    place = tmp_path_factory.mktemp("plugins")
    environment, home = place / "venv", place / "home"
    venv.create(environment, with_pip=not UV.exists())
    bin_dir = environment / "bin"
    wheels = place / "wheels"
    for source in (ROOT, EXAMPLE):
        build(source, wheels)
    install(bin_dir / "python", *sorted(wheels.glob("*.whl")))
    add_broken_package(next((environment / "lib").glob("python*/site-packages")))
    home.mkdir()
    snippets = re.findall(r"```toml\n(# 3ox\.toml\n.*?)```", GUIDE.read_text(), re.DOTALL)
    settings = "\n".join(snippets).replace("~/cmd.bridge", str(home))
    (home / "my_jobs.py").write_text(MY_JOBS)
    environ = bridge_environ(home, "", settings)
    del environ["PYTHONPATH"]
    bridge = Installed(bin_dir, home, environ)
    started = bridge.run("up", "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield bridge
    finally:
        stopped = bridge.run("down")
        sweep(environ)
    assert stopped.returncode == 0, stopped.stderr


def add_broken_package(site_packages: Path) -> None:
    """Install the package with the mistakes, as pip lays a wheel down."""
    (site_packages / "broken_plugin.py").write_text(BROKEN_MODULE)
    info = site_packages / "broken_plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(BROKEN)


def test_the_adapter_runs_and_submits(installed: Installed) -> None:
    """``3ox up`` runs it, ``status`` lists it, a line in its pipe is asked and answered by the provider."""

    def serving() -> bool:
        found = installed.json("status")["daemons"]
        return any(item["name"] == "questions" and item["healthy"] for item in found)

    eventually(serving, 30.0, every_s=0.2)
    eventually((installed.home / "questions").exists, 10.0)
    with (installed.home / "questions").open("w") as pipe:
        pipe.write("what is this\n")
    accepted = eventually(lambda: installed.log("questions.accepted"), 20.0)
    job_id = accepted[0]["job_id"]
    assert installed.run("wait", job_id).returncode == 0
    job = installed.json("jobs", job_id)
    assert (job["source"], job["result"]["text"]) == ("questions", "Reversed: this is what")
    assert job["result"]["provider"] == "reverse"


def test_the_adapter_is_started_again(installed: Installed) -> None:
    """Killed, it comes back."""

    def pid() -> int:
        found = installed.json("status")["daemons"]
        return next((item["pid"] for item in found if item["name"] == "questions" and item["healthy"]), 0)

    before = eventually(pid, 30.0, every_s=0.2)
    subprocess.run(["kill", "-KILL", str(before)], check=True)
    eventually(lambda: pid() not in (0, before), 30.0, every_s=0.2)


def test_the_provider_is_selectable(installed: Installed) -> None:
    """``3ox ask --provider`` finds it; a wrong name is refused with the nearest."""
    ran = installed.run("ask", "--provider", "reverse", "one two three")
    assert (ran.returncode, ran.stdout.strip()) == (0, "Reversed: three two one"), ran.stderr
    refused = installed.run("ask", "--provider", "revers", "one")
    assert refused.returncode == 1
    assert "Did you mean 'reverse'?" in refused.stderr


def test_the_destination_receives_a_result_once(installed: Installed) -> None:
    """Each finished job of its types is one line in its file; others are not delivered."""
    asked = installed.run("ask", "--provider", "reverse", "--detach", "a b").stdout.strip()
    installed.run("sh", "--", "true")
    assert installed.run("wait", asked).returncode == 0
    journal = installed.home / "journal.jsonl"

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        return [line for line in found if line["job"] == asked]

    (line,) = eventually(lines, 20.0)
    assert (line["state"], line["text"]) == ("completed", "Reversed: b a")
    (delivery,) = [
        item for item in installed.json("jobs", asked)["deliveries"] if item["sink"] == "plugin:journal"
    ]
    assert delivery["status"] == "completed"
    assert "true" not in journal.read_text()


def test_the_middleware_runs_around_every_job(installed: Installed) -> None:
    """Its line is in the kept output of a job; the caller of ``3ox sh`` gets what the command wrote."""
    ran = installed.run("sh", "--", "echo", "hello")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello\n", "")
    (job,) = installed.json("jobs", "--type", "shell.cmd", "--limit", "1")["jobs"]
    assert "announce: shell.cmd on " in installed.run("logs", job["job_id"]).stderr


def test_the_actors_are_job_types(installed: Installed) -> None:
    """Jobs of the package's actor, and of the module in the workspace, run and are listed like others."""
    code = """
from bridge_example.jobs import count_words
from my_jobs import greet
sent = [count_words.send("a b a", unique=True), greet.send("Ada")]
print(*(message.get_result(block=True, timeout=30_000) for message in sent), sep="\\n")
"""
    sent = subprocess.run(
        [str(installed.bin_dir / "python"), "-c", code],
        env=dict(installed.environ),
        cwd=installed.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert sent.stdout.splitlines() == ["{'words': 2}", "Hello, Ada"], sent.stderr
    jobs = {job["job_type"]: job for job in installed.json("jobs")["jobs"]}
    assert jobs["count_words"]["status"] == jobs["greet"]["status"] == "completed"
    job = installed.json("jobs", jobs["count_words"]["job_id"])
    assert job["payload"] == {"text": "a b a", "unique": True}
    assert job["result"] == {"words": 2}


def test_what_is_broken_is_logged_once(installed: Installed) -> None:
    """One line for each, with the reason; the bridge works without."""
    logged = installed.log("plugin.broken")
    found = {(line["group"], line["name"]): line for line in logged}
    assert len(logged) == len(found), logged
    assert found.keys() == REASONS.keys()
    for key, reason in REASONS.items():
        assert reason in found[key]["reason"]
        assert found[key]["distribution"] == "broken-plugin 0.1"


def test_doctor_names_what_is_broken(installed: Installed) -> None:
    """A note for each that no setting needs; it becomes an error if 3ox.toml names it."""
    report = installed.json("doctor")
    assert report["healthy"], report
    found = {check["name"]: check for check in report["checks"]}
    assert found["provider reverse"]["verdict"] == found["actors my_jobs"]["verdict"] == "ok"
    assert found["destination journal"]["verdict"] == "note"
    assert found["middleware displaced"]["verdict"] == "note"
    assert found["middleware displaced"]["found"].startswith("broken-plugin 0.1: before = 'Retires'")
    own = installed.home.parent / "second"
    own.mkdir()
    (own / "3ox.toml").write_text('actors = ["missing_jobs"]\n[ask]\nproviders = ["no_arguments"]\n')
    second = Installed(installed.bin_dir, own, {**installed.environ, "BRIDGE_HOME": str(own)})
    checks = {check["name"]: check for check in second.json("doctor")["checks"] if check["verdict"] == "bad"}
    assert checks.keys() == {"actors missing_jobs", "provider no_arguments"}
    assert "No module named 'missing_jobs'" in checks["actors missing_jobs"]["found"]


def test_the_guide_shows_the_example() -> None:
    """Every file in docs/how-to/write-a-plugin.md is the one of the example."""
    shown = re.findall(
        r"`examples/plugin/([\w./]+)`:\n\n```(?:python|toml)\n(.*?)```", GUIDE.read_text(), re.DOTALL
    )
    assert {file for file, _ in shown} == {
        str(file.relative_to(EXAMPLE))
        for file in EXAMPLE.rglob("*")
        if file.suffix in {".py", ".toml"} and file.name != "__init__.py"
    }
    for file, text in shown:
        assert text == (EXAMPLE / file).read_text(), file
