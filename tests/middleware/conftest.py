"""The scripts under a prefix of the test's own, on the shared real store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.middleware.driver import Driver


@pytest.fixture
def driver(valkey: str, prefix: str) -> Iterator[Driver]:
    """The scripts with their default limits."""
    made = Driver(valkey, prefix)
    yield made
    made.close()
