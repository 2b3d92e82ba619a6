"""A destination: a line of JSON per finished job, in the file that ``[destinations.journal]`` names."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.egress.outcome import Outcome, result_text
from ops.errors import JobRefused


def deliver(outcome: Outcome, settings: Mapping[str, Any]) -> str:
    """Append the job to the file, unless an earlier attempt of this delivery has.

    Raises:
        JobRefused: The settings name no file.
    """
    if "file" not in settings:
        raise JobRefused("The journal has no file.", remedy="Set file in [destinations.journal].")
    path = Path(settings["file"]).expanduser()
    job = outcome.record
    line = {"delivery": outcome.delivery_id, "job": job.job_id, "state": job.status, "text": result_text(job)}
    with path.open("a+") as file:
        # Several deliveries run at the same time.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if all(json.loads(known)["delivery"] != outcome.delivery_id for known in file):
            file.write(json.dumps(line) + "\n")
    return str(path)
