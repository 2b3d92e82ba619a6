"""A command of a project that reports progress and stops cleanly when its job is cancelled.

Settings in 3ox.toml, with the path of this file::

    [projects.count]
    path = "WORKDESK"
    command = ["python3", "/path/to/examples/report_progress.py"]

Then ``3ox run count 20`` and ``3ox jobs --watch``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType


def stop(_number: int, _frame: FrameType | None) -> None:
    """End on SIGTERM, which a cancelled job gets before SIGKILL."""
    print("stopped, nothing left behind")
    sys.exit(1)


signal.signal(signal.SIGTERM, stop)
steps = int(os.environ["BRIDGE_TASK"])
for step in range(1, steps + 1):
    time.sleep(0.1)  # the work
    # A line of this form on stdout becomes the job's progress and is not part of its output.
    print(f"::progress {100 * step / steps:.0f} step {step} of {steps}", flush=True)
print(f"counted to {steps} in job {os.environ['BRIDGE_JOB_ID']}")
