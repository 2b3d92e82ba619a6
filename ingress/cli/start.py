"""Where ``3ox`` begins: the short way for what only hands a job in, click for everything else."""

from __future__ import annotations

import os
import sys

#: Commands of which ``quick.py`` knows the plain forms.
QUICK = ("run", "sh", "ask")


def main() -> None:
    """Run ``3ox`` with the arguments of this process and exit."""
    sys.exit(start(sys.argv[1:]))


def start(arguments: list[str]) -> int:
    """Carry out one command line and give its exit code."""
    if arguments and arguments[0] in QUICK and "_3OX_COMPLETE" not in os.environ:
        from ingress.cli.quick import quick

        act = quick(arguments)
        if act is not None:
            _import_msgspec_lightly()
            try:
                return act()
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (told as every command's errors are)
                from ingress.cli.main import exit_code_for

                return exit_code_for(error)
    from ingress.cli.main import run

    return run(arguments)


def _import_msgspec_lightly() -> None:
    """Import msgspec without typing_extensions, which would be a quarter of our start-up.

    It then takes the functions of ``typing`` itself, as it does where that library is not installed.
    """
    from ops.lightly import without

    with without("typing_extensions"):
        import msgspec  # noqa: F401


if __name__ == "__main__":
    main()
