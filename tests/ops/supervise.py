"""Runs a supervisor in a process of its own, over programs that a test describes in JSON.

    python -m tests.ops.supervise HOME SPEC.json

A program is ready when the file that its ``ready`` names exists; that file may hold ``pid mark``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ops.errors import BridgeError
from ops.logs import configure_logging
from ops.settings.load import load_settings
from ops.supervision.program import Program, Readiness
from ops.supervision.state_file import claim
from ops.supervision.supervisor import Supervisor


def _file_check(file: Path) -> Callable[[int], Coroutine[Any, Any, Readiness]]:
    async def ready(_pid: int) -> Readiness:
        while not file.exists() or not file.read_text().endswith("\n"):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
        words = file.read_text().split()  # noqa: ASYNC240
        file.unlink()  # noqa: ASYNC240
        if not words:
            return Readiness()
        return Readiness(pids=(int(words[0]),), marks=(("BRIDGE_WORKER_ID", words[1]),))

    return ready


def main(home: str, spec_file: str) -> int:
    """Run it; print ``ready`` when it is, or the error."""
    spec = json.loads(Path(spec_file).read_text())
    loaded = load_settings(Path(home), environ={})
    loaded.workspace.create()
    programs = [
        Program(**{**item, "ready": _file_check(Path(item["ready"])) if "ready" in item else None})
        for item in spec["programs"]
    ]
    try:
        with claim(loaded.workspace, grace_s=0.2):
            configure_logging(loaded, process="up", console=False)
            supervisor = Supervisor(
                programs,
                loaded.workspace,
                start_timeout_s=spec.get("start_timeout_s", 20.0),
                kill_grace_s=0.2,
                on_ready=lambda: print("ready", flush=True),  # noqa: T201
            )
            return supervisor.run()
    except BridgeError as error:
        print(error, flush=True)  # noqa: T201
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
