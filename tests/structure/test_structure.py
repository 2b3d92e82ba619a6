"""What holds for the structure of the product; ``python -m tests.structure --all`` shows every place."""

from __future__ import annotations

import pytest

from tests.structure import imports, language, names
from tests.structure.modules import product


def test_no_import_cycles() -> None:
    """Late imports count, and those for type checkers only."""
    assert imports.cycles(product()) == []


def test_no_late_imports_of_our_own_modules() -> None:
    """An import within a function keeps an expensive library off the start; the reasons are in one table."""
    assert imports.late_imports(product()) == []


def test_a_class_name_is_unique_within_its_layer() -> None:
    """Private and nested classes count."""
    assert names.repeated_classes(product()) == {}


def test_no_module_is_too_long() -> None:
    """A module has one duty, and at most 400 lines."""
    assert names.long_modules(product()) == []


def test_no_function_is_too_long() -> None:
    """A function fits on a screen: at most 60 lines."""
    assert names.long_functions(product()) == []


def test_one_module_reads_the_environment() -> None:
    """All others use ``ops.environment``, which normalizes values and expands ``~``."""
    assert names.environment_reads(product()) == []


def test_interfaces_do_not_import_each_other() -> None:
    """They import ``ingress.core`` and ``ingress.dispatch``; the exceptions are in one table."""
    assert imports.across_adapters(product()) == []


@pytest.mark.parametrize("table", [imports.ACROSS, imports.LATE], ids=["ACROSS", "LATE"])
def test_every_exception_is_still_needed(table: dict[tuple[str, str], str]) -> None:
    """A row that no import needs is removed."""
    assert imports.unused(product(), table) == []


def test_the_text_is_plain() -> None:
    """No phrase of the list is in documentation, docstrings, comments or messages; a few have a reason."""
    assert [str(phrase) for phrase in language.phrases(product())] == []
    assert len(language.KEPT) <= 10
