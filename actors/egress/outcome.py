"""What a sink is given of an ended job, and how it is written as text."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from middleware.job.records import JobRecord, Receipt

#: Fields of a result or payload that are its text, in the order of preference.
_RESULT_TEXTS = ("text", "answer", "stdout_tail")
_PAYLOAD_TEXTS = ("prompt", "task", "text", "note")
_FENCE_MIN = 3


class Outcome(Struct, frozen=True, kw_only=True):
    """An ended job on its way to one sink.

    Attributes:
        delivery_id: Of this delivery; the same in every attempt, so that a receiver can tell a repetition.
        record: The job.
        receipt: Its receipt.
    """

    delivery_id: str
    record: JobRecord
    receipt: Receipt

    @property
    def title(self) -> str:
        """One line: what ended, and how."""
        what = (
            f"{self.record.job_type} for {self.record.project}"
            if self.record.project
            else self.record.job_type
        )
        return f"{what} {self.record.status}"


class Delivered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a delivery.

    Attributes:
        sink: To whom.
        place: Where it is now: a path, the receiver's host, the number of a message.
    """

    sink: str
    place: str = ""


def result_text(record: JobRecord) -> str:
    """Give the text of a job's result; empty if it has none, or is no text."""
    if isinstance(record.result, str):
        return record.result
    return _text_in(record.result, _RESULT_TEXTS)


def request_text(record: JobRecord) -> str:
    """Give what was asked for, in words; empty if that cannot be said so."""
    if isinstance(record.payload, dict) and isinstance(record.payload.get("argv"), list):
        import shlex

        return shlex.join(record.payload["argv"])
    return _text_in(record.payload, _PAYLOAD_TEXTS)


def _text_in(value: Any, names: tuple[str, ...]) -> str:
    if not isinstance(value, dict):
        return ""
    texts = (value.get(name) for name in names)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def as_json(outcome: Outcome) -> bytes:
    """Write an outcome as one JSON document."""
    return msgspec.json.encode(
        {
            "event": f"job.{outcome.record.status}",
            "delivery_id": outcome.delivery_id,
            "job": outcome.record,
            "receipt": outcome.receipt,
        }
    )


def as_markdown(outcome: Outcome) -> str:
    """Write an outcome as a page for people."""
    record = outcome.record
    facts = [
        ("Job", record.job_id),
        ("Asked by", f"{record.actor} through {record.source}" if record.actor else record.source),
        ("Project", record.project),
        ("Session", record.session_id),
        ("Started", record.started_at),
        ("Ended", record.completed_at),
        ("Reason", record.reason),
        ("Receipt", f"{record.job_id}.receipt.json"),
    ]
    parts = [
        f"# {_line(outcome.title)}",
        "\n".join(f"- {name}: {_line(said)}" for name, said in facts if said),
    ]
    asked, said = request_text(record), result_text(record)
    if asked:
        parts.append(f"## Request\n\n{_fenced(asked)}")
    if said:
        # A model's answer is Markdown itself; what a command wrote is not.
        parts.append(f"## Result\n\n{said.strip() if record.job_type == 'ask' else _fenced(said)}")
    elif record.result is not None:
        pretty = msgspec.json.format(msgspec.json.encode(record.result), indent=2).decode()
        parts.append(f"## Result\n\n{_fenced(pretty, 'json')}")
    if record.error is not None:
        told = f"{record.error.type}: {record.error.message}\n{record.error.remedy}"
        parts.append(f"## Error\n\n{_fenced(told)}")
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _fenced(text: str, language: str = "") -> str:
    """Put text into a code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(_FENCE_MIN, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
