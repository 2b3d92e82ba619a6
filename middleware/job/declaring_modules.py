"""The modules that declare the built-in job types, each imported when its type is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from importlib import import_module


class DeclaringModules:
    """The modules of one package; each declares the job type of its name.

    Args:
        package: Name of the package; imported at the first use.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._modules: frozenset[str] | None = None

    def load(self, job_type: str) -> None:
        """Import the module that declares a job type, if there is one."""
        module = _module_of(job_type)
        if module in self._names():
            import_module(f"{self._package}.{module}")

    def load_all(self, declared: Callable[[], Collection[str]]) -> None:
        """Import all modules.

        Args:
            declared: Returns the names of the types that have been declared.

        Raises:
            ValueError: A module declares no type of its name.
        """
        for module in sorted(self._names()):
            import_module(f"{self._package}.{module}")
        missing = self._names() - {_module_of(name) for name in declared()}
        if missing:
            raise ValueError(
                f"{self._package}.{min(missing)} declares no job type of its name; the type 'a.b' is declared"
                " in a_b.py"
            )

    def _names(self) -> frozenset[str]:
        if self._modules is None:
            found = (name for folder in import_module(self._package).__path__ for name in os.listdir(folder))  # noqa: PTH208 (importing pathlib takes 5 ms)
            self._modules = frozenset(
                name[:-3] for name in found if name.endswith(".py") and not name.startswith("_")
            )
        return self._modules


def _module_of(job_type: str) -> str:
    return job_type.replace(".", "_").replace("-", "_")
