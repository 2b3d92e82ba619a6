"""The server-side functions: every ``.lua`` file of this folder, over what they share in ``prelude.lua``.

They are one library of Redis functions, which the store compiles once. As scripts, the shared part would be
run anew with each call: draining a queue of no-op jobs took the store an eighth more processor time. The
names of library and functions carry a hash of the text, so that two versions of the bridge can work on one
store while it is being upgraded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hiredis
from msgspec import Struct

from ops.store.resp import Argument, Reply, as_error

if TYPE_CHECKING:
    from ops.store.client import Store

#: A store whose memory is full takes no more jobs in, but those that it has are carried out and committed.
REFUSED_WHEN_FULL = frozenset({"adopt", "enqueue", "requeue"})
#: Libraries of this many versions are left in the store; an upgrade beyond that removes the others, and a
#: process of such a version loads its own again when it finds it gone.
_VERSIONS_MAX = 4
_NAME = "threeox_"


class Library(Struct, frozen=True):
    """The functions of this version.

    Attributes:
        name: Of the library.
        text: As ``FUNCTION LOAD`` takes it.
        functions: Short name -> name in the store.
    """

    name: str
    text: str
    functions: dict[str, str]


@cache
def library() -> Library:
    """Put the library together."""
    folder = Path(__file__).parent
    prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
    files = sorted(file for file in folder.glob("*.lua") if file.name != "prelude.lua")
    bodies = {file.stem: file.read_text(encoding="utf-8") for file in files}
    mark = hashlib.sha256("\0".join([prelude, *bodies, *bodies.values()]).encode()).hexdigest()[:12]
    functions = {name: f"{_NAME}{name}_{mark}" for name in bodies}
    parts = [f"#!lua name={_NAME}{mark}", prelude]
    parts += [_registered(functions[name], body, name) for name, body in bodies.items()]
    return Library(f"{_NAME}{mark}", "\n".join(parts), functions)


def _registered(function: str, body: str, name: str) -> str:
    flags = "" if name in REFUSED_WHEN_FULL else "'allow-oom'"
    return (
        f"redis.register_function{{ function_name = '{function}', flags = {{ {flags} }},\n"
        f"callback = function(keys, arguments)\nbegin(keys, arguments)\n{body}\nend }}\n"
    )


def load(store: Store) -> None:
    """Load the library into a store that does not have it.

    Raises:
        StoreUnreachable: No answer.
        StoreError: The store refuses it: it is older than Redis 7, or forbids functions.
    """
    ours = library()
    listed = store.call("FUNCTION", "LIST", "LIBRARYNAME", f"{_NAME}*")
    known = [_library_name(row) for row in listed]
    commands: list[Sequence[Argument]] = []
    if len(known) >= _VERSIONS_MAX:
        commands = [("FUNCTION", "DELETE", name) for name in known if name != ours.name]
    commands.append(("FUNCTION", "LOAD", "REPLACE", ours.text))
    reply = store.pipeline(commands)[-1]
    if isinstance(reply, hiredis.ReplyError):
        raise as_error(reply)


def is_unknown(reply: Reply) -> bool:
    """Tell whether a reply says that the store does not have the function."""
    return isinstance(reply, hiredis.ReplyError) and "Function not found" in str(reply)


def _library_name(row: Reply) -> str:
    fields = row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))
    name: bytes = fields[b"library_name"]
    return name.decode()
