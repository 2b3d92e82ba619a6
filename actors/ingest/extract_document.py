"""Writes the text of one document to standard output; a separate program, because documents are untrusted.

    python -I extract_document.py FILE SUFFIX MEMORY_BYTES TEXT_BYTES

``actors.ingest.text_extraction`` runs it with a timeout; it limits its own memory and forbids itself to write
files. It imports nothing of ours. Exit status: 0 done, 3 the extra ``documents`` is not installed, 4 the
document cannot be read.
"""

from __future__ import annotations

import os
import resource
import sys

from ops.environment import export

EXIT_MISSING = 3
EXIT_UNREADABLE = 4
_ERROR_MAX_CHARS = 300


def _confine(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse_connections(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.exec", "os.system"):
        raise PermissionError(f"the document tried {event} {arguments[:1]!r}")


def main(arguments: list[str]) -> int:
    """Extract the text; returns the exit status (see the module)."""
    path, suffix, memory_bytes, text_bytes = arguments
    # Numerical libraries reserve memory per thread, which is useless here. ONNX Runtime sends telemetry and
    # writes to the home directory unless it is disabled.
    export({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"})
    export({"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull})
    _confine(int(memory_bytes))
    try:
        from markitdown import MarkItDown, StreamInfo
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_MISSING
    # After the imports: Python must be able to cache their bytecode, or each document takes seconds longer.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.addaudithook(_refuse_connections)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (this program starts fast)
            found = MarkItDown(enable_plugins=False).convert_stream(
                file, stream_info=StreamInfo(extension=suffix)
            )
        text = found.text_content
    except Exception as error:  # noqa: BLE001 (a hostile document can make the reader raise anything)
        # A missing library of one format shows in the message only.
        missing = "MissingDependency" in type(error).__name__ or "optional dependency" in str(error)
        sys.stderr.write(f"{type(error).__name__}: {str(error)[:_ERROR_MAX_CHARS]}\n")
        return EXIT_MISSING if missing else EXIT_UNREADABLE
    sys.stdout.buffer.write(text.encode("utf-8", "replace")[: int(text_bytes)])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
