"""Imports a library as it is where something that it can do without is not installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Within this block, importing a module fails as if it were not there, unless it is imported already.

    Libraries that use another one if they find it pay for it also where nobody wants it. Whoever imports it
    afterwards gets it.

    Args:
        name: Of the module.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
