"""Programs that tests start beside ours: the system's, else installed now, else an error with the remedy."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ops.errors import StartFailed

#: Of the programs of a bare Debian only those that a smaller system may lack are in it.
_PACKAGES = {
    "bash": "bash",
    "curl": "curl",
    "git": "git",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "ps": "procps",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "systemd-analyze": "systemd",
    "tmux": "tmux",
    "unshare": "util-linux",
}
#: Libraries that wheels expect of the system.
_LIBRARIES = {"libatomic.so.1": "libatomic1", "libgomp.so.1": "libgomp1"}
#: Where administrators' programs are, and an ordinary user's PATH does not lead.
_ADMIN_DIRS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
#: A test may take 120 s, see pyproject.toml.
_INSTALL_S = 90
#: The lists of packages may be missing or old; they are fetched only if it does not go without. Another apt
#: has the lock of dpkg for the time of its own installation.
_INSTALL = """
export DEBIAN_FRONTEND=noninteractive
install() {
  apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout="$1" "$2"
}
install "$@" || { apt-get update && install "$@"; }
"""


def require_tool(name: str) -> str:
    """Give a program's path, after installing it if it is missing and we are root.

    Args:
        name: Of the program, one of those in this module's table.

    Raises:
        StartFailed: It is missing and cannot be installed; the remedy is a command.
    """
    package = _PACKAGES[name]
    found = find_tool(name)
    said = ""
    if found is None:
        said = apt_install(package, timeout_s=_INSTALL_S)
        found = find_tool(name)
    if found is None:
        raise StartFailed(f"the program {name!r} is missing{said}.", remedy=remedy(package))
    return found


def require_library(name: str) -> None:
    """See that a library of the system is there, after installing it if it is missing and we are root.

    Args:
        name: Of the file, one of those in this module's table.

    Raises:
        StartFailed: It is missing and cannot be installed; the remedy is a command.
    """
    package = _LIBRARIES[name]
    said = "" if _loads(name) else apt_install(package, timeout_s=_INSTALL_S)
    if not _loads(name):
        raise StartFailed(f"the library {name} is missing{said}.", remedy=remedy(package))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def find_tool(name: str) -> str | None:
    """Look a program up where users and administrators have theirs."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_ADMIN_DIRS)))


def remedy(package: str) -> str:
    """Tell how a package is installed."""
    return f"Run 'apt-get install -y {package}' as root, or install {package} as this system does."


def apt_install(package: str, *, timeout_s: int) -> str:
    """Install a package of the system, if there is apt-get and we are root.

    Another run of the tests that installs something is waited for.

    Args:
        package: Its name.
        timeout_s: For all of it. What runs then is left to end by itself: a half-done installation is worse.

    Returns:
        Why it is not installed, to be appended to a message; empty if it is, or if it was not tried.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None or shutil.which("flock") is None:
        return ""
    lock = Path("/run/lock/3ox-tests-install")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [
                    "flock",
                    "--timeout",
                    str(timeout_s),
                    str(lock),
                    "sh",
                    "-c",
                    _INSTALL,
                    "sh",
                    str(timeout_s),
                    package,
                ],
                stdin=subprocess.DEVNULL,
                # No pipe: it would be waited for as long as anything of apt lives.
                stdout=output,
                stderr=output,
                start_new_session=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f" (apt-get did not end within {timeout_s} s)"
        output.seek(0)
        lines = output.read().decode(errors="replace").split("\n")
    if done.returncode == 0:
        return ""
    why = [line for line in lines if line.startswith("E: ")]
    return f" (apt-get: {why[-1].removeprefix('E: ') if why else 'another run installs for too long'})"
