"""Where ``3ox`` begins: the short way for what only hands a job in, click for everything else."""

from __future__ import annotations

import gc
import os
import sys

#: Commands of which ``quick.py`` knows the plain forms.
QUICK = ("run", "sh", "ask")
#: 128 + SIGINT, as everywhere; ``signal`` is not imported for it.
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run ``3ox`` with the arguments of this process and exit."""
    arguments = sys.argv[1:]
    try:
        code = short_way(arguments)
        if code is not None:
            _leave_at_once(code)
            sys.exit(code)
        from ingress.cli.main import run
    except KeyboardInterrupt:
        # While we import, which is most of a short command's time.
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(run(arguments))


def short_way(arguments: list[str]) -> int | None:
    """Carry a command line out that only hands a job in.

    Args:
        arguments: What follows the program's name.

    Returns:
        The exit code, or None if it is none of those command lines.
    """
    if not arguments or arguments[0] not in QUICK or "_3OX_COMPLETE" in os.environ:
        return None
    from ingress.cli.quick import quick

    act = quick(arguments)
    if act is None:
        return None
    # Next to nothing of what is imported now becomes rubbish: looking for some took a seventh of our time.
    gc.disable()
    _import_msgspec_lightly()
    try:
        return act()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (told as every command's errors are)
        from ingress.cli.main import exit_code_for

        return exit_code_for(error)


def _leave_at_once(code: int) -> None:
    """End the process without tidying up what ends with it, another seventh; nothing here waits for that."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # the ordinary way out says what is wrong with them
    os._exit(code)


def _import_msgspec_lightly() -> None:
    """Import msgspec without typing_extensions, which would be a quarter of our start-up.

    It then takes the functions of ``typing`` itself, as it does where that library is not installed.
    """
    from ops.import_shim import without

    with without("typing_extensions"):
        import msgspec  # noqa: F401


if __name__ == "__main__":
    main()
