"""A bridge of the test's own with the policy that it writes, and the scripts under a prefix of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, connect
from ops.settings.load import load_settings
from tests.middleware.conftest import driver
from tests.workers import sweep

__all__ = ["driver"]

Governed = Callable[[str], Bridge]


@pytest.fixture
def governed(environ: dict[str, str]) -> Iterator[Governed]:
    """Write 3ox.toml and give the bridge that keeps to it; what runs in its workspace is swept away."""

    def write(settings: str) -> Bridge:
        (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(settings)
        return connect(load_settings(environ=environ))

    yield write
    sweep(environ)
