"""Network namespaces as hosts: each with a name, an address and a cable of its own to one switch.

Nothing of the machine's own network is touched: the switch is a namespace too. A namespace lives as long as
the small process that holds it, and that one ends with ours.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ops.errors import BridgeError, StartFailed
from tests.tools import require_tool

#: Names the host and waits for the end of its standard input, which comes when its maker ends.
_HOLDER = """
import socket, sys
socket.sethostname(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
_TIMEOUT_S = 10.0
_INSIDE = "--inside-user-namespace"


class Host(Struct, frozen=True):
    """A host.

    Attributes:
        name: Its host name; also of its port on the switch.
        address: Its IPv4 address.
        holder_pid: Of the process that keeps its namespaces.
    """

    name: str
    address: str
    holder_pid: int

    def command(self, *argv: str) -> list[str]:
        """Return the argument list that runs a command on this host."""
        place = f"/proc/{self.holder_pid}/ns"
        return [require_tool("nsenter"), f"--net={place}/net", f"--uts={place}/uts", "--", *argv]

    def ip(self, *argv: str) -> list[str]:
        """Return the argument list that runs ``ip`` on this host."""
        return self.command(require_tool("ip"), *argv)


class Network:
    """A switch with hosts.

    Args:
        switch: The host that is the switch.
    """

    def __init__(self, switch: Host) -> None:
        self._switch = switch

    def plug_in(self, host: Host) -> None:
        """Connect a host."""
        on = self._switch.ip
        _run(*on("link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns"), pid=host)
        _run(*on("link", "set", host.name, "master", "switch", "up"))
        _run(*host.ip("address", "add", f"{host.address}/24", "dev", "eth0"))
        for link in ("lo", "eth0"):
            _run(*host.ip("link", "set", link, "up"))

    def cut(self, host: Host) -> None:
        """Cut a host's network without notifying either side."""
        _run(*self._switch.ip("link", "set", host.name, "down"))

    def mend(self, host: Host) -> None:
        """Put a host's cable back."""
        _run(*self._switch.ip("link", "set", host.name, "up"))


@contextlib.contextmanager
def network(names: Sequence[str]) -> Iterator[tuple[Network, list[Host]]]:
    """Make hosts on one switch for the time of a block.

    Args:
        names: Of the hosts, at most 15 letters each.

    Raises:
        StartFailed: Namespaces cannot be made here.
    """
    require_tools()
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(_host("switch", ""))
        _run(*switch.ip("link", "add", "switch", "type", "bridge", "forward_delay", "0"))
        _run(*switch.ip("link", "set", "switch", "up"))
        made = Network(switch)
        hosts = []
        for number, name in enumerate(names, start=1):
            host = stack.enter_context(_host(name, f"10.77.0.{number}"))
            made.plug_in(host)
            hosts.append(host)
        yield made, hosts


@contextlib.contextmanager
def _host(name: str, address: str) -> Iterator[Host]:
    holder = subprocess.Popen(
        [require_tool("unshare"), "--net", "--uts", sys.executable, "-S", "-c", _HOLDER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != b"held\n":
            raise StartFailed(
                f"no network namespace can be made: {holder.stderr.read().decode().strip()}.", remedy=_REMEDY
            )
        yield Host(name, address, holder.pid)
    finally:
        holder.stdin.close()
        holder.wait(_TIMEOUT_S)
        holder.stdout.close()
        holder.stderr.close()


_REMEDY = "Run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1."


def require_tools() -> None:
    """See to it that what makes namespaces is there.

    Raises:
        StartFailed: A tool is missing, or this is no Linux.
    """
    if not sys.platform.startswith("linux"):
        raise StartFailed("network namespaces exist on Linux only.", remedy="Run it there.")
    for tool in ("ip", "unshare", "nsenter"):
        require_tool(tool)


def become_root_inside() -> None:
    """Start this program again as root of a user namespace of its own, unless it is root already.

    Raises:
        StartFailed: User namespaces are not allowed here.
    """
    if os.geteuid() == 0:
        return
    require_tools()
    inside = [require_tool("unshare"), "--user", "--map-root-user"]
    probe = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise StartFailed(f"no user namespace can be made: {probe.stderr.strip()}.", remedy=_REMEDY)
    os.execv(inside[0], [*inside, *sys.orig_argv])  # noqa: S606


def _run(*argv: str, pid: Host | None = None) -> None:
    whole = [*argv, *([] if pid is None else [str(pid.holder_pid)])]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise BridgeError(f"{' '.join(whole)}: {done.stderr.strip()}", remedy="See ip-link(8).")
