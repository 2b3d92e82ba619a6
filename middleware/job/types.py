"""The registry of job types, and what a declaration needs.

The built-in types are declared in ``actors/job_types/``, one module each, which the registry finds by their
names.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

import cmd_bridge
from middleware.job.registry import DeclaringModules, JobType, JobTypes, Payload

__all__ = ["DELIVER", "JOB_TYPES", "NO_RETRY", "JobType", "NonEmpty", "Payload"]

NonEmpty = Annotated[str, Meta(min_length=1)]

#: Name of the job type that delivers a result.
DELIVER = "deliver"
#: Commands are not retried by default: a failed one may already have had effects.
NO_RETRY = 0

JOB_TYPES = JobTypes(DeclaringModules(cmd_bridge.JOB_TYPES))
