"""Write docs/reference/cli.md: the help of every command, so that a change shows in review.

Run ``python -m tests.cli.help_pages`` from the repository's root after a change; a test compares.
"""

from __future__ import annotations

import click

from ingress.cli.main import MODULES, PROGRAM, cli
from tests.support import ROOT

DOCUMENT = ROOT / "docs/reference/cli.md"
#: What click uses when 80 columns are there or nothing is known.
_WIDTH = 78
_INTRODUCTION = f"""\
# Commands

The help of every command, as `{PROGRAM} COMMAND --help` shows it. Made by `python -m tests.cli.help_pages`;
`make test` fails when it is out of date.
"""


def render() -> str:
    """Give the whole document."""
    frame = click.Context(cli, info_name=PROGRAM, terminal_width=_WIDTH, **cli.context_settings)
    pages = [_INTRODUCTION, _page(PROGRAM, cli.get_help(frame))]
    for name in MODULES:
        command = cli.get_command(frame, name)
        if command is None:
            raise LookupError(name)
        context = click.Context(command, info_name=name, parent=frame)
        pages.append(_page(f"{PROGRAM} {name}", command.get_help(context)))
    return "\n".join(pages)


def _page(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(render())
