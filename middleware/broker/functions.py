"""The library of server-side functions: the ``.lua`` files of this folder, after ``prelude.lua``.

The store compiles a library once. As scripts, the shared part would run again with each call: draining a
queue of no-op jobs took the store an eighth more processor time. The names of the library and its functions
contain a hash of their text, so that two versions of the bridge can work on one store during an upgrade.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache

import hiredis
from msgspec import Struct

from ops.store.client import Store
from ops.store.resp import Argument, Reply, as_error

#: Functions that add jobs. A store whose memory is full refuses these, but still runs and commits its jobs.
REFUSED_WHEN_FULL = frozenset({"adopt", "enqueue", "requeue"})
#: Libraries that stay in the store. Loading one more removes the others; a process of such a version loads
#: its own again when it is missing.
_VERSIONS_MAX = 4
_NAME = "threeox_"
#: What the functions share, in the order of their use.
_SHARED = ("prelude.lua", "enqueue_batch.lua")


class Library(Struct, frozen=True):
    """The functions of this version.

    Attributes:
        name: Name of the library.
        functions: Short name -> name in the store.
        prelude: What the functions share, Lua.
        bodies: Short name -> body of the function, Lua.
    """

    name: str
    functions: dict[str, str]
    prelude: bytes
    bodies: dict[str, bytes]

    @property
    def text(self) -> str:
        """Argument of ``FUNCTION LOAD``."""
        parts = [f"#!lua name={self.name}", self.prelude.decode()]
        parts += [
            _registered(self.functions[name], body.decode(), name) for name, body in self.bodies.items()
        ]
        return "\n".join(parts)


@cache
def library() -> Library:
    """Return the library of this version."""
    folder = os.path.dirname(__file__)  # noqa: PTH120
    # Without glob and file objects: half a millisecond of the short commands.
    files = sorted(name for name in os.listdir(folder) if name.endswith(".lua") and name not in _SHARED)  # noqa: PTH208
    prelude = b"\n".join(_content(folder, name) for name in _SHARED)
    bodies = {name.removesuffix(".lua"): _content(folder, name) for name in files}
    hashed = b"\0".join([prelude, *(name.encode() for name in bodies), *bodies.values()])
    mark = hashlib.blake2b(hashed, digest_size=6).hexdigest()
    functions = {name: f"{_NAME}{name}_{mark}" for name in bodies}
    return Library(f"{_NAME}{mark}", functions, prelude, bodies)


def _content(folder: str, name: str) -> bytes:
    fd = os.open(f"{folder}/{name}", os.O_RDONLY)
    try:
        return os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _registered(function: str, body: str, name: str) -> str:
    flags = "" if name in REFUSED_WHEN_FULL else "'allow-oom'"
    return (
        f"redis.register_function{{ function_name = '{function}', flags = {{ {flags} }},\n"
        f"callback = function(keys, arguments)\nbegin(keys, arguments)\n{body}\nend }}\n"
    )


def load(store: Store) -> None:
    """Load the library into the store.

    Raises:
        StoreUnreachable: No answer.
        StoreError: The store refuses it: it is older than Redis 7, or does not allow functions.
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
    """Return whether a reply means that the store does not have the function."""
    return isinstance(reply, hiredis.ReplyError) and "Function not found" in str(reply)


def _library_name(row: Reply) -> str:
    fields = row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))
    name: bytes = fields[b"library_name"]
    return name.decode()
