"""Payloads of the built-in job types, made of what their declarations say: the example and the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from middleware.job.registry import JobType
from middleware.job.schema import JOB_TYPES

#: A value of each JSON type, for a field that the example leaves out.
_VALUES: dict[str, Any] = {
    "string": "x",
    "integer": 5,
    "number": 0.5,
    "boolean": True,
    "array": [],
    "object": {"a": "1"},
}


def declared(job_type: str) -> JobType:
    """Return the declaration of a built-in type."""
    found = JOB_TYPES.get(job_type)
    assert found is not None
    return found


def smallest(job_type: str) -> dict[str, Any]:
    """Return the example of a type without the fields that it need not have."""
    kind = declared(job_type)
    required = kind.json_schema().get("required", ())
    return {name: value for name, value in kind.example.items() if name in required}


def largest(job_type: str) -> dict[str, Any]:
    """Return the example of a type with all further fields that its payload may have."""
    kind = declared(job_type)
    properties: Mapping[str, Any] = kind.json_schema()["properties"]
    made = {name: _value(schema) for name, schema in properties.items() if name not in kind.example}
    return {**kind.example, **made}


def _value(schema: Mapping[str, Any]) -> Any:
    for part in (schema, *schema.get("anyOf", ())):
        if "enum" in part:
            return part["enum"][-1]
        if part.get("type") in _VALUES:
            return _VALUES[part["type"]]
    return [1]  # any value
