"""Start the bridge with its own packages, whatever else is on Python's path.

A user may have modules of the same names as ours: ``actors.py``, ``middleware/``, ``ops.py``. This module
has a name of its own. ``3ox`` and all programs that the bridge starts begin here: ``pin`` makes the four
names mean our packages, before the working directory, ``PYTHONPATH`` and ``site-packages`` are searched.

``dramatiq my_jobs`` does not begin here. There, our packages check what is found (``require_own``).

    python cmd_bridge.py COMMAND ...      the command ``3ox``
    python cmd_bridge.py -m MODULE ...    a module, as ``python -m`` runs it
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

OWN = ("ops", "middleware", "actors", "ingress")
#: Package whose modules declare the built-in job types; the registry, in a lower layer, finds them by it.
JOB_TYPES = "actors.job_types"
_FILE = os.path.abspath(__file__)
_ROOT = os.path.dirname(_FILE)
#: Below this, Python 3.11 would keep modules that it could compile only in part, and never start again.
_FREE_MIN_BYTES = 4 * 1024 * 1024
_REMEDY = "rename it, start from another directory, or start the workers with '3ox worker'"


class _OwnPackages:
    """A finder (``sys.meta_path``) of our four packages."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return where one of our packages is; None for any other module."""
        del path, target
        return PathFinder.find_spec(name, [_ROOT]) if name in OWN else None


def pin() -> None:
    """Make the names of our packages mean ours in this process.

    Raises:
        ImportError: Another module of such a name is imported already.
    """
    if _OwnPackages not in sys.meta_path:
        require_own(*(name for name in OWN if name in sys.modules))
        sys.meta_path.insert(0, _OwnPackages)


def require_own(*names: str) -> None:
    """Check that the names of our packages mean ours in this process.

    Args:
        *names: The packages that the caller is about to import.

    Raises:
        ImportError: One of them is another module; says which file.
    """
    if _OwnPackages in sys.meta_path:
        return
    for name in names:
        place = _place(name)
        if place is not None and not _is_ours(place):
            raise ImportError(f"{place} hides the package {name!r} of CMD.BRIDGE: {_REMEDY}.")


def warn_of_foreign_actors() -> None:
    """Log a warning if this is a Dramatiq worker of a module ``actors`` that is not ours.

    It may be meant: such a worker can submit jobs to the bridge. It carries out none of them.
    """
    if "dramatiq.cli" in sys.modules and "actors" in sys.modules:
        place = _place("actors")
        if place is not None and not _is_ours(place):
            import logging

            logging.getLogger("cmd_bridge").warning(
                "This worker runs %s, not the actors of CMD.BRIDGE. To carry out the bridge's jobs, %s.",
                place,
                _REMEDY,
            )


def _place(name: str) -> str | None:
    """Return the file or folder of a module, imported or not; None if it is not found."""
    module = sys.modules.get(name)
    spec = PathFinder.find_spec(name) if module is None else module.__spec__
    if spec is None:
        return None
    folders = spec.submodule_search_locations
    return next(iter(folders), None) if folders is not None else spec.origin


def _is_ours(place: str) -> bool:
    parent = os.path.dirname(os.path.abspath(place))
    return parent == _ROOT or (os.path.isdir(parent) and os.path.samefile(parent, _ROOT))


def own_argv(*arguments: str) -> list[str]:
    """Return the argument list that runs ``3ox`` (or ``-m MODULE``) with this interpreter and our packages.

    Args:
        *arguments: Of ``3ox``; or ``-m``, a module and its arguments.
    """
    # -P: not the directory of this file, nor the working directory, before everything else.
    return [sys.executable, "-P", _FILE, *arguments]


def spare_full_disk() -> None:
    """Write no compiled modules where their disk is almost full."""
    try:
        disk = os.statvfs(sys.pycache_prefix if sys.pycache_prefix else _ROOT)
    except OSError:  # the folder does not exist yet
        return
    if disk.f_bavail * disk.f_frsize < _FREE_MIN_BYTES:
        sys.dont_write_bytecode = True


def main() -> None:
    """Run the command ``3ox`` with the arguments of this process and exit."""
    pin()
    spare_full_disk()
    try:
        from ingress.cli.start import main as start

        start()
    except EOFError as error:
        if "marshal" not in str(error):
            raise
        cache = sys.pycache_prefix if sys.pycache_prefix else f"the folders __pycache__ below {_ROOT}"
        sys.exit(
            "3ox: The disk is full, or was when Python compiled the bridge: a compiled module is incomplete. "
            f"Free some space and remove {cache}."
        )


def _run_module() -> None:
    import runpy

    module = sys.argv[2]
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__")


# A process that Dramatiq's master has spawned imports its master's file under the second name.
if __name__ in {"__main__", "__mp_main__"}:
    sys.modules["cmd_bridge"] = sys.modules[__name__]
    pin()
    spare_full_disk()
if __name__ == "__main__":
    if sys.argv[1:2] == ["-m"]:
        _run_module()
    else:
        main()
