"""What a destination receives of a finished job, as JSON and as Markdown."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from middleware.job.records import JobRecord, Receipt
from middleware.job.texts import is_answer, request_text, result_text

__all__ = ["Delivered", "Outcome", "as_json", "as_markdown", "request_text", "result_text"]

_FENCE_MIN = 3


class Outcome(Struct, frozen=True, kw_only=True):
    """A finished job to be delivered to one destination.

    Attributes:
        delivery_id: Id of the delivery; the same in every attempt, so that a receiver detects repetitions.
        record: The job.
        receipt: Its receipt.
    """

    delivery_id: str
    record: JobRecord
    receipt: Receipt

    @property
    def title(self) -> str:
        """One line: job type, project and final state."""
        name = (
            f"{self.record.job_type} for {self.record.project}"
            if self.record.project
            else self.record.job_type
        )
        return f"{name} {self.record.status}"


class Delivered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a delivery.

    Attributes:
        sink: The destination.
        place: Where the result is now: a path, the receiver's host, a chat.
    """

    sink: str
    place: str = ""


def as_json(outcome: Outcome) -> bytes:
    """Return an outcome as one JSON document."""
    return msgspec.json.encode(
        {
            "event": f"job.{outcome.record.status}",
            "delivery_id": outcome.delivery_id,
            "job": outcome.record,
            "receipt": outcome.receipt,
        }
    )


def as_markdown(outcome: Outcome) -> str:
    """Return an outcome as a Markdown page."""
    record = outcome.record
    facts = [
        ("Job", record.job_id),
        ("Submitted by", f"{record.actor} ({record.source})" if record.actor else record.source),
        ("Project", record.project),
        ("Session", record.session_id),
        ("Started", record.started_at),
        ("Completed", record.completed_at),
        ("Reason", record.reason),
        ("Receipt", f"{record.job_id}.receipt.json"),
    ]
    parts = [
        f"# {_line(outcome.title)}",
        "\n".join(f"- {name}: {_line(value)}" for name, value in facts if value),
    ]
    request, result = request_text(record), result_text(record)
    if request:
        parts.append(f"## Request\n\n{_fenced(request)}")
    if result:
        # A model's answer is Markdown already; the output of a command is not.
        parts.append(f"## Result\n\n{result.strip() if is_answer(record) else _fenced(result)}")
    elif record.result is not None:
        pretty = msgspec.json.format(msgspec.json.encode(record.result), indent=2).decode()
        parts.append(f"## Result\n\n{_fenced(pretty, 'json')}")
    if record.error is not None:
        error = f"{record.error.type}: {record.error.message}\n{record.error.remedy}"
        parts.append(f"## Error\n\n{_fenced(error)}")
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _fenced(text: str, language: str = "") -> str:
    """Return text in a code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(_FENCE_MIN, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
