"""What holds for the structure of the product; ``python -m tests.structure --all`` shows every place."""

from __future__ import annotations

import pytest

from tests.structure import imports, names
from tests.structure.modules import product


def test_no_import_cycles() -> None:
    """Late imports count, and those for type checkers only."""
    assert imports.cycles(product()) == []


def test_no_module_is_too_long() -> None:
    """A module has one duty, and at most 400 lines."""
    assert names.long_modules(product()) == []


def test_no_function_is_too_long() -> None:
    """A function fits on a screen: at most 60 lines."""
    assert names.long_functions(product()) == []


def test_interfaces_do_not_import_each_other() -> None:
    """They import ``ingress.core`` and ``ingress.dispatch``; the exceptions are in one table."""
    assert imports.across_adapters(product()) == []


@pytest.mark.parametrize("table", [imports.ACROSS, imports.LATE], ids=["ACROSS", "LATE"])
def test_every_exception_is_still_needed(table: dict[tuple[str, str], str]) -> None:
    """A row that no import needs is removed."""
    assert imports.unused(product(), table) == []
