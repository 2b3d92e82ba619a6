"""What people are shown of a job's request and of its result, as the declaration of its type says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from middleware.job.records import JobRecord
from middleware.job.types import JOB_TYPES

#: Parameters and results of users' actors that are read as their texts, the most telling first.
_TITLES = ("task", "prompt", "text", "name", "note", "path")
_RESULTS = ("text", "answer", "stdout_tail")


def request_text(record: JobRecord) -> str:
    """Return the text that says what a job is about; of an actor without such a text, its arguments."""
    return next(request_texts(record), "")


def request_texts(record: JobRecord) -> Iterator[str]:
    """Yield all texts that say what a job is about, the most telling first."""
    payload = record.payload if isinstance(record.payload, dict) else {}
    declared = JOB_TYPES.get(record.job_type)
    own = () if declared is None else tuple(name for name in declared.title if name in payload)
    names = own if own else _TITLES  # of a user's actor, or as another version wrote the payload
    yield from (text for name in names if name in payload and (text := _text(payload[name])))
    if declared is None:
        scalars = {name: value for name, value in payload.items() if isinstance(value, str | int | float)}
        if scalars:
            yield " ".join(f"{name}={value}" for name, value in scalars.items())


def result_text(record: JobRecord) -> str:
    """Return the text in a job's result; empty if it has none."""
    if isinstance(record.result, str):
        return record.result
    if not isinstance(record.result, dict):
        return ""
    declared = JOB_TYPES.get(record.job_type)
    if declared is None:
        return next((text for name in _RESULTS if (text := _string(record.result, name))), "")
    texts = (_string(record.result, name) for name in declared.result_texts)
    return "\n".join(text for text in texts if text)


def is_answer(record: JobRecord) -> bool:
    """Return whether the text in a job's result is a reply in itself, as that of a language model."""
    declared = JOB_TYPES.get(record.job_type)
    return declared is not None and declared.answers


def _text(value: Any) -> str:
    if isinstance(value, list):
        return shlex.join(map(str, value))
    return str(value) if isinstance(value, str | int | float) else ""


def _string(result: dict[str, Any], name: str) -> str:
    text = result.get(name)
    return text if isinstance(text, str) and text.strip() else ""
