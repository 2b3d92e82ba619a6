"""``python -m tests.structure``: prints the numbers, and with ``--all`` every place."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.structure import imports, language, names
from tests.structure.modules import product


def main() -> int:
    """Print them."""
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description=__doc__)
    parser.add_argument("--all", action="store_true", help="print every place")
    options = parser.parse_args()
    modules = product()
    kept = [phrase for phrase in language.all_phrases(modules) if language.is_kept(phrase)]
    typed = imports.typing_imports(modules)
    parts: dict[str, Sequence[object]] = {
        "import cycles (late imports and those for types count)": imports.cycles(modules),
        "imports of one interface by another": imports.across_adapters(modules),
        "  allowed, with a reason (ACROSS)": list(imports.ACROSS.items()),
        "late imports of our own modules": imports.late_imports(modules),
        "  allowed, with a reason (LATE)": list(imports.LATE.items()),
        "imports of our own modules for types only": typed,
        "class names used twice within a layer": list(names.repeated_classes(modules).items()),
        "modules of more than 400 lines": names.long_modules(modules),
        "functions of more than 60 lines": names.long_functions(modules),
        "phrases to rewrite": language.phrases(modules),
        "  kept, with a reason (KEPT)": kept,
    }
    for title, found in parts.items():
        sys.stdout.write(f"{len(found):5}  {title}\n")
        for item in found if options.all else ():
            sys.stdout.write(f"         {item}\n")
    sizes = ", ".join(f"{layer} {count}" for layer, count in _count(modules).items())
    sys.stdout.write(f"\nmodules: {sizes}\n")
    return 0


def _count(modules: Sequence[object]) -> Counter[str]:
    return Counter(str(getattr(module, "layer", "")) for module in modules)


if __name__ == "__main__":
    sys.exit(main())
