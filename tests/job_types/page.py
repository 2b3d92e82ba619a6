"""A page of the documentation about a user's actors, followed in a user's directory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.job_types.conftest import Pools
from tests.support import ROOT

_FILE = re.compile(r"[Aa] new file `(?P<name>[\w.]+)`:\n\n```python\n(?P<text>.*?)```", re.DOTALL)
_PROGRAM = re.compile(r"```python\n(?P<text>.*?)```", re.DOTALL)
_PRINTED = re.compile(r"print\(.*\)  # (?P<text>.*)$", re.MULTILINE)


class Page:
    """The files, programs and commands of a page.

    Args:
        name: Its path below ``docs/``.
        pools: The user's directory.

    Attributes:
        text: The page.
        programs: Its Python blocks that are not files, in their order.
        commands: Its lines ``$ 3ox ...``, without the prompt and the comment.
    """

    def __init__(self, name: str, pools: Pools) -> None:
        self.text = (ROOT / "docs" / name).read_text()
        self._pools = pools
        self.programs = [found["text"] for found in _PROGRAM.finditer(_FILE.sub("", self.text))]
        lines = re.findall(r"^\$ 3ox (.*)$", self.text, re.MULTILINE)
        self.commands = [re.sub(r"\s+# .*", "", line) for line in lines]

    def write_files(self) -> list[str]:
        """Write the files of the page into the user's directory; returns their names."""
        names = []
        for found in _FILE.finditer(self.text):
            (self._pools.folder / found["name"]).write_text(found["text"])
            names.append(found["name"])
        return names

    def run(self, program: str) -> None:
        """Run a program; it has to print what its comments say."""
        printed = run_python(self._pools, program)
        assert printed.splitlines() == [found["text"] for found in _PRINTED.finditer(program)]


def run_python(pools: Pools, program: str, *arguments: str) -> str:
    """Run a program in the user's directory, as a user does; returns what it prints."""
    file = Path(pools.folder, "program.py")
    file.write_text(program)
    done = subprocess.run(
        [sys.executable, str(file), *arguments],
        env=pools.environ,
        cwd=pools.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
