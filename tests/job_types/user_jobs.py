"""A module of a user's actors, as the guide shows one, and the bridges that tests run it in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.support import eventually
from tests.workers import running_worker

#: ``my_jobs.py`` of the user.
MY_JOBS = '''\
import dramatiq

from actors import broker
from actors.context import current_job


@dramatiq.actor(queue_name="media", max_retries=3, time_limit=60_000)
def thumbnail(path: str, size: int = 128) -> dict[str, object]:
    """Scale an image down."""
    current_job().progress(50, "scaling")
    return {"path": path, "size": size}


@dramatiq.actor(queue_name="media", max_retries=0)
def refuse(why: str = "no reason") -> None:
    """Fail."""
    raise ValueError(why)


@dramatiq.actor(queue_name="media")
def tidy() -> None:
    """Remove old files."""
'''


@contextlib.contextmanager
def running_pools(environ: Mapping[str, str]) -> Iterator[Bridge]:
    """Run a worker for the built-in types and one for those of ``my_jobs.py``, which has published them.

    Args:
        environ: Of the bridge; ``my_jobs.py`` is written into its workspace.
    """
    (Path(environ["BRIDGE_HOME"]) / "my_jobs.py").write_text(MY_JOBS)
    bridge = Bridge(load_settings(environ=environ))
    with (
        running_worker(bridge, environ, name="built-in"),
        running_worker(bridge, environ, name="media", module="my_jobs"),
    ):
        eventually(lambda: bridge.admission.types.find("tidy"), 15.0)
        yield bridge
