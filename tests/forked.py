"""Runs short commands of ``3ox`` in forks of one process that has imported them: a fifth of the time.

Each command is a process with arguments, environment, directory and streams of its own, in which nothing of
another command is left. It does not show what importing costs, nor in which order modules are imported;
where that counts, a test starts ``threeox(...)``.

    python -m tests.forked FD    the process that forks; it serves the socket FD until its other end is closed
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

_REQUEST_MAX_BYTES = 200_000
#: These decide how an interpreter starts.
_OF_INTERPRETER = ("PYTHON", "LC_", "LANG", "COVERAGE")


class ForkServer:
    """The process that forks, started for the first command.

    Args:
        environ: Of the process.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._start_up = _start_up(environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=Path(__file__).parent.parent,
                env=dict(environ),
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._end)

    def serves(self, environ: Mapping[str, str]) -> bool:
        """Return whether an interpreter with this environment would start as this one has."""
        return _start_up(environ) == self._start_up

    def run(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path, stdin: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``3ox`` with these arguments; as ``subprocess.run``.

        Raises:
            TimeoutExpired: The command did not end in time; it has been killed.
        """
        request = json.dumps({"arguments": list(arguments), "environ": dict(environ), "cwd": str(cwd)})
        ours, theirs = socket.socketpair()
        with ours, theirs, _memory(stdin) as given, _memory() as out, _memory() as err:
            streams = [file.fileno() for file in (given, out, err)]
            socket.send_fds(self._control, [request.encode()], [*streams, theirs.fileno()])
            theirs.close()
            ours.settimeout(timeout_s)
            pid, code = None, b""
            try:
                pid = int.from_bytes(ours.recv(4), "big")
                code = ours.recv(4)
            except TimeoutError:
                if pid:
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout_s, _text(out), _text(err)) from None
            assert code, f"the process that runs 3ox {arguments} was lost: {_text(err)}"
            number = int.from_bytes(code, "big", signed=True)
            return subprocess.CompletedProcess(list(arguments), number, _text(out), _text(err))

    def _end(self) -> None:
        self._control.close()
        self._process.wait(10.0)


def _start_up(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_OF_INTERPRETER)}


def _memory(text: str = "") -> io.BufferedRandom:
    file = open(os.memfd_create("3ox"), "w+b")  # noqa: PTH123, SIM115 (the caller closes it)
    file.write(text.encode())
    file.seek(0)
    return file


def _text(file: io.BufferedRandom) -> str:
    file.seek(0)
    return io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8").read()


def serve(control: socket.socket) -> None:
    """Run every command that is asked for, each in a process of its own."""
    from ingress.cli.main import MODULES

    for module in sorted(set(MODULES.values())):
        import_module(f"ingress.cli.{module}")
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the processes of the commands
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _REQUEST_MAX_BYTES, 4)
        if not request:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            _report(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _report(request: bytes, descriptors: list[int]) -> NoReturn:
    """Run a command in a process, and send its process id and its exit code."""
    reply = socket.socket(fileno=descriptors.pop())
    pid = os.fork()
    if pid == 0:
        reply.close()
        _run(json.loads(request), descriptors)
    reply.send(pid.to_bytes(4, "big"))
    _, status = os.waitpid(pid, 0)
    reply.send(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
    os._exit(0)


def _run(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the process of a command."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    sys.path[0] = request["cwd"]
    sys.argv = ["3ox", *request["arguments"]]
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, errors=errors)  # noqa: PTH123, SIM115 (open to the end)
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    code = 1
    try:
        from ingress.cli.start import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 (shown as the interpreter does)
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
