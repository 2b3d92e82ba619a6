"""How long a person waits for a command that hands a job in: the whole process, from exec to exit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ops.settings.load import load_settings
from tests.support import ROOT, RunningValkey, clean_environ

SAMPLES = 30
_TIMEOUT_S = 60.0
_SETTINGS = '[projects.demo]\npath = "."\ncommand = ["true", "{task}"]\n'


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of each process, those of one round one after the other.

    Attributes:
        run_ms: ``3ox run demo x``.
        sh_ms: ``3ox sh --detach -- true``.
        ask_ms: ``3ox ask --detach x``.
        click_ms: ``python -c "import click"``, for comparison.
        bare_ms: ``python -c pass``, the least that any Python takes.
    """

    run_ms: list[float] = []
    sh_ms: list[float] = []
    ask_ms: list[float] = []
    click_ms: list[float] = []
    bare_ms: list[float] = []


def threeox_argv() -> list[str]:
    """Return the command line of ``3ox``: the installed command if there is one beside this Python."""
    script = Path(sys.executable).parent / "3ox"
    return [str(script)] if script.exists() else [sys.executable, "-m", "ingress.cli.start"]


def measure_commands(samples: int, say: Callable[[str], None]) -> Commands:
    """Measure each command against a store that runs, and Python itself, by turns.

    Args:
        samples: Of each.
        say: Told what is going on.
    """
    say(f"commands: {samples} of each")
    threeox = threeox_argv()
    contestants: dict[str, Sequence[str]] = {
        "run_ms": [*threeox, "run", "demo", "x"],
        "sh_ms": [*threeox, "sh", "--detach", "--", "true"],
        "ask_ms": [*threeox, "ask", "--detach", "x"],
        "click_ms": [sys.executable, "-c", "import click"],
        "bare_ms": [sys.executable, "-c", "pass"],
    }
    found: dict[str, list[float]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory(prefix="3ox-bench-") as home:
        (Path(home) / "3ox.toml").write_text(_SETTINGS)
        loaded = load_settings(Path(home), environ={})
        loaded.workspace.create()
        store = RunningValkey(loaded)
        store.start()
        environ = clean_environ({"BRIDGE_HOME": home, "PYTHONPATH": str(ROOT)})
        try:
            for argv in contestants.values():
                _timed_ms(argv, environ)  # compiling and caching is not measured
            for _ in range(samples):
                for name, argv in contestants.items():
                    found[name].append(_timed_ms(argv, environ))
        finally:
            store.stop()
    return Commands(**found)


def _timed_ms(argv: Sequence[str], environ: dict[str, str]) -> float:
    began_s = time.perf_counter()
    # With a time-out `subprocess` looks for the end of a process after 32, 64, 114 ms; a pipe's end it hears.
    subprocess.run(argv, env=environ, cwd=os.sep, stdout=subprocess.PIPE, check=True, timeout=_TIMEOUT_S)
    return (time.perf_counter() - began_s) * 1000
