"""A bridge with the policy that a test writes, and the store functions under a prefix of the test's own."""

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
    """Return a function that writes 3ox.toml and returns its bridge; processes of the workspace are ended."""

    def write(settings: str) -> Bridge:
        (Path(environ["BRIDGE_HOME"]) / "3ox.toml").write_text(settings)
        return connect(load_settings(environ=environ))

    yield write
    sweep(environ)
