"""More callers than there are file descriptors: they wait, and the log is not drowned in complaints."""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.rest.conftest import running_api
from tests.support import eventually


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of another process are Linux's")
def test_a_lack_of_descriptors_is_said_once(environ: dict[str, str]) -> None:
    """As soon as others have gone, the next caller is answered."""
    with running_api(environ) as api:
        assert api.process is not None
        address = urlsplit(api.url)
        pid, few = api.process.pid, len(list(Path(f"/proc/{api.process.pid}/fd").iterdir())) + 6
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, few))
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=5))
            eventually(lambda: "rest.no_descriptors" in api.log())
        assert api.client(None)("GET", "/version").status == 200
        assert api.log().count("rest.no_descriptors") == 1
        assert "out of system resource" not in api.log() + api.output.read_text()
