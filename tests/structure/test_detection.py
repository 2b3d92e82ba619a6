"""What counts the faults of the structure finds those that are put before it."""

from __future__ import annotations

from pathlib import Path

from tests.structure import imports, language, names
from tests.structure.modules import Module, parse


def modules(**sources: str) -> tuple[Module, ...]:
    """Parse modules given as ``layer__package__module="source"``."""
    return parse({Path(name.replace("__", "/") + ".py"): text for name, text in sources.items()})


def test_a_cycle_over_a_late_import_and_one_for_types_is_found() -> None:
    """Three modules, each import of another kind."""
    found = modules(
        ops__a="import ops.b\n",
        ops__b="def f():\n    from ops import c\n",
        ops__c="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ops.a import X\n",
        ops__d="from ops.a import X\n",
    )
    assert imports.cycles(found) == [["ops.a", "ops.b", "ops.c"]]
    assert [edge.target for edge in imports.late_imports(found)] == ["ops.c"]
    assert [edge.target for edge in imports.typing_imports(found)] == ["ops.a"]


def test_a_module_that_imports_itself_is_a_cycle() -> None:
    """As a fold of two modules may leave it."""
    assert imports.cycles(modules(ops__a="def f():\n    from ops.a import g\n")) == [["ops.a"]]


def test_an_interface_that_imports_another_is_found() -> None:
    """``ingress.core`` is for all of them, the exceptions are in the table."""
    found = modules(
        ingress__rest__server="import ingress.core.bridge\nfrom ingress.clock.serve import Clock\n",
        ingress__core__bridge="",
        ingress__clock__serve="",
        ingress__cli__daemons="def f():\n    from ingress.clock.serve import Clock\n",
    )
    (edge,) = imports.across_adapters(found)
    assert (edge.source, edge.target) == ("ingress.rest.server", "ingress.clock.serve")
    assert imports.late_imports(found) == []


def test_a_class_name_is_counted_once_for_each_layer() -> None:
    """Nested and private ones too; two layers may have the same name."""
    found = modules(
        ops__a="class One:\n    class _Two: ...\n", ops__b="class _Two: ...\n", actors__c="class One: ...\n"
    )
    assert names.repeated_classes(found) == {"ops: _Two": ["ops/a.py:2", "ops/b.py:1"]}


def test_what_is_too_long_is_found() -> None:
    """One line more than the limit."""
    body = "def f():\n" + "    x = 1\n" * names.FUNCTION_LINES
    assert names.long_functions(modules(ops__a=body)) == ["ops/a.py:1: f has 61 lines"]
    assert names.long_modules(modules(ops__a="\n" * 401)) == ["ops/a.py: 401 lines"]


def test_phrases_are_found_in_text_and_not_in_code() -> None:
    """Docstrings, comments and literals; a name of the code is not a phrase."""
    source = (
        '"""Give the time.\n\nIt is read once more."""\n'
        "anew = 1  # so long\n"
        'note = f"{anew} lies in the way"\n'
    )
    ours = [phrase for phrase in language.all_phrases(modules(ops__a=source)) if "ops/a.py" in phrase.place]
    assert sorted(phrase.place for phrase in ours) == ["ops/a.py:1", "ops/a.py:3", "ops/a.py:4", "ops/a.py:5"]
