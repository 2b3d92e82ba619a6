"""The examples of docs/reference/rest.md run as written, one after the other, in one shell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from ops.settings.rest import RestSettings
from tests.rest.conftest import HOOK_SECRET, STANDARD_SECRET, Api
from tests.support import ROOT
from tests.tools import require_tool

PAGE = (ROOT / "docs/reference/rest.md").read_text()


def test_the_examples_run(api: Api, tmp_path: Path) -> None:
    """Each request gets the answer that the page describes."""
    for tool in ("curl", "openssl"):
        require_tool(tool)
    snippets = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    script = "\n".join(snippets).replace("http://127.0.0.1:7777", api.url.rstrip("/"))
    script = script.replace("3ox token", f"{sys.executable} -m ingress.cli.main token")
    secrets = f"BEAT_WEBHOOK_SECRET='{HOOK_SECRET}' STANDARD_WEBHOOK_SECRET='{STANDARD_SECRET}'\n"
    ran = subprocess.run(
        [
            "sh",
            "-eu",
            "-c",
            secrets + script.replace("curl -s", "curl -sS --fail-with-body"),
        ],
        env=api.environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for wanted in (
        '"status":"queued"',
        '"nonce":"hello"',
        "event: state",
        '"name":"hello.txt"',
        '"source":"webhook"',
    ):
        assert wanted in ran.stdout, wanted
    assert ran.stdout.count('"source":"webhook"') == 2
    for file in api.loaded.workspace.inbox.iterdir():
        shutil.rmtree(file)


def test_every_setting_is_described() -> None:
    """The page names every setting of ``[rest]``."""
    for name in RestSettings.__struct_fields__:
        assert f"`{name}`" in PAGE or f"[rest.{name}." in PAGE, name
