"""The workspace: made on first use, private where it has to be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ops.errors import SettingsError
from ops.workspace import SOCKET_PATH_MAX_BYTES, Workspace


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_create(tmp_path: Path) -> None:
    """All directories are made, also a second time, and the private state is closed to others."""
    workspace = Workspace(tmp_path / "a" / "b")
    workspace.create()
    workspace.state_dir.chmod(0o755)
    workspace.create()
    assert {path.name for path in workspace.home.iterdir()} == {"IN1N.3OX", "0UT.3OX", "WORKDESK", ".3ox"}
    assert {path.name for path in workspace.state_dir.iterdir()} == {
        "valkey",
        "run",
        "spool",
        "ledger",
        "keys",
    }
    assert mode(workspace.state_dir) == 0o700


def test_socket_of_a_short_path(tmp_path: Path) -> None:
    """A socket whose path fits is in the workspace."""
    workspace = Workspace(Path("/w"))
    assert workspace.store_socket == Path("/w/.3ox/run/valkey.sock")
    assert str(tmp_path) not in str(workspace.store_socket)


def test_socket_of_a_long_path(tmp_path: Path) -> None:
    """A longer path leads to a short private directory, always the same, another one for another home."""
    first, second = Workspace(tmp_path / ("x" * 100)), Workspace(tmp_path / ("y" * 100))
    assert len(os.fsencode(first.store_socket)) <= SOCKET_PATH_MAX_BYTES
    assert first.store_socket == Workspace(first.home).store_socket
    assert first.store_socket != second.store_socket
    first.create()
    assert mode(first.store_socket.parent) == 0o700
    first.store_socket.parent.rmdir()


def test_unsafe_socket_directory(tmp_path: Path) -> None:
    """A directory that is open to others, or a link put in its place, is refused."""
    workspace = Workspace(tmp_path / ("z" * 100))
    folder = workspace.store_socket.parent
    folder.symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="shorter path"):
        workspace.create()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SettingsError, match="accessible to others"):
        workspace.secure_socket_dir()
    folder.rmdir()


def test_unusable_home(tmp_path: Path) -> None:
    """A workspace that cannot be made is an error with a remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="BRIDGE_HOME"):
        Workspace(tmp_path / "file" / "home").create()
