"""Entry point of ``3ox``: a fast path for commands that only submit a job, click for everything else."""

from __future__ import annotations

import gc
import os
import sys

from ops.environment import variable

#: Commands that may take the fast path.
FAST = ("ask", "run", "sh", "submit")
#: 128 + SIGINT; ``signal`` is not imported for it.
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run ``3ox`` with the arguments of this process and exit."""
    arguments = sys.argv[1:]
    try:
        code = fast_path(arguments)
        if code is not None:
            _exit_at_once(code)
            sys.exit(code)
        from ingress.cli.main import run  # loads click
    except KeyboardInterrupt:
        # Imports are most of a short command's time.
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(run(arguments))


def fast_path(arguments: list[str]) -> int | None:
    """Run a command that only submits a job, and return its exit code; None for any other command.

    Args:
        arguments: What follows the program's name.
    """
    if not arguments or arguments[0] not in FAST or variable("_3OX_COMPLETE"):
        return None
    if sys.stdout is None or sys.stderr is None:
        return None
    # Hardly any of the objects that imports create becomes garbage; collecting took a seventh of the time.
    gc.disable()
    code = _submit(arguments[0], arguments[1:])
    if code is None:
        gc.enable()
    return code


def _submit(command: str, words: list[str]) -> int | None:
    """Run one of ``FAST``; return None if its options call for more than submitting a job."""
    from ingress.cli.submit_options import FORMS, parse

    values = parse(FORMS[command], words)
    if values is None or not FORMS[command].returns_at_once(values):
        return None
    _import_lightly()
    try:
        from ingress.cli.job_builder import build, submit_only

        return submit_only(build(command, values), as_json=values["as_json"])
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (reported as the errors of every command)
        from ingress.cli.main import exit_code_for  # loads click

        return exit_code_for(error)


def _exit_at_once(code: int) -> None:
    """Exit without the interpreter's clean-up, which takes another seventh of the time."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # the ordinary exit reports what is wrong with them
    os._exit(code)


def _import_lightly() -> None:
    """Import msgspec without typing_extensions, and hashlib without OpenSSL.

    typing_extensions would be a quarter of the start-up time, loading OpenSSL 2 ms. msgspec then uses
    ``typing``, hashlib the implementations of Python, as they do where the others are not installed.
    """
    from ops.import_shim import without

    with without("typing_extensions"), without("_hashlib"):
        import hashlib  # noqa: F401

        import msgspec  # noqa: F401


if __name__ == "__main__":
    main()
