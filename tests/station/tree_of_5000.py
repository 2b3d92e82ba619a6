"""Drop a tree of 5,000 entries in 300 folders at once, and print what became of each kind of entry.

    python -m tests.station.tree_of_5000 [--files N] [--folders N] [--threads N] [--kills N]

A real store, a station and a worker run in a workspace of their own.
Exits 1 if an entry is not accounted for.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ingress.dispatch import Bridge
from ops.processes import descendants
from ops.settings.load import load_settings
from tests.station.dropped_tree import Account, account_for, build_tree
from tests.station.running import RunningStation
from tests.support import RunningValkey, bridge_environ, eventually
from tests.workers import running_worker, sweep

SETTINGS = """
[station]
settle_s = 1.0
empty_folder_s = 2.0
rescan_s = 2.0
"""
_TREE = "tree"
_LIMIT_S = 600.0


def main(arguments: list[str]) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description="Drop a tree and account for every entry.")
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--folders", type=int, default=300)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--kills", type=int, default=0, help="how often the station is killed meanwhile")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="3ox-tree-") as folder:
        home = Path(folder, "home")
        home.mkdir()
        server = RunningValkey(load_settings(Path(folder, "store"), environ={}))
        server.start()
        environ = bridge_environ(home, server.url, SETTINGS)
        try:
            return run(Bridge(load_settings(environ=environ)), environ, options)
        finally:
            sweep(environ)
            server.stop()


def run(bridge: Bridge, environ: dict[str, str], options: argparse.Namespace) -> int:
    """Build and drop the tree, wait, and print the account; return the exit code."""
    workspace = bridge.loaded.workspace
    workspace.create()
    source = workspace.home / "source"
    entries = build_tree(source, files=options.files, folders=options.folders)
    ingested = sum(entry.fate == "ingested" for entry in entries)
    _say(f"{len(entries)} entries in {options.folders} folders, {ingested} of which become jobs")
    with (
        running_worker(bridge, environ, threads=options.threads) as worker,
        RunningStation(bridge, environ) as station,
    ):
        began_s = time.monotonic()
        source.rename(workspace.inbox / _TREE)
        eventually(lambda: len(station.claims()) > 0, _LIMIT_S, every_s=0.05)
        _say(f"first claim after {time.monotonic() - began_s:.1f} s")
        for number in range(1, options.kills + 1):
            least = number * ingested // (options.kills + 1)
            eventually(lambda least=least: bridge.reader.summary()["completed"] >= least, _LIMIT_S)  # type: ignore[misc]
            station.kill()
            station.start()
            _say(f"station killed and started again at {least} jobs")
        eventually(lambda: bridge.reader.summary()["completed"] >= ingested, _LIMIT_S, every_s=0.2)
        took_s = time.monotonic() - began_s
        _say(f"all jobs completed after {took_s:.1f} s, {ingested / took_s:.0f} a second")
        eventually(lambda: not station.claims(), _LIMIT_S, every_s=0.2)
        _say(f"all claims removed after {time.monotonic() - began_s:.1f} s")
        assert station.process is not None
        for name, pid in (("station", station.process.pid), ("worker", worker.process.pid)):
            pids = [pid, *descendants(pid)]
            cpu_s, memory_mb = sum(map(_cpu_s, pids)), sum(map(_peak_mb, pids))
            _say(f"{name}: {cpu_s:.1f} s of CPU time, {memory_mb:.0f} MB of memory")
        account = account_for(bridge, _TREE, entries)
    return report(account, Counter(entry.what for entry in entries))


def report(account: Account, dropped: Counter[str]) -> int:
    """Print the account; return the exit code."""
    _say(f"\n{'kind':<24}{'dropped':>8}{'ingested':>10}{'note':>6}{'failed':>8}{'left':>6}")
    for what, number in sorted(dropped.items()):
        row = [account.counts[what, fate] for fate in ("ingested", "note", "failed", "left")]
        _say(f"{what:<24}{number:>8}{row[0]:>10}{row[1]:>6}{row[2]:>8}{row[3]:>6}")
    accounted = sum(account.counts.values())
    _say(f"\n{accounted} of {dropped.total()} accounted for, {len(account.problems)} problems")
    for problem in account.problems[:20]:
        _say(f"  {problem}")
    return 1 if account.problems or accounted != dropped.total() else 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
