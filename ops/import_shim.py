"""Import a library while hiding an optional dependency of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Within this block, importing a module fails as if it were not installed, unless it is already imported.

    For libraries that import a slow optional dependency whenever it is installed. After the block, the module
    can be imported as usual.

    Args:
        name: Name of the module.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
