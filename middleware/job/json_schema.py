"""Validate a payload for an actor that this process does not declare, by the JSON Schema a worker published.

An actor that this process declares: ``signature.py``. A built-in type: ``schema.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ops.errors import InvalidJob


def validate(payload: Mapping[str, Any], schema: dict[str, Any], parameters: Sequence[str]) -> None:
    """Check a payload; the errors are those of ``ActorSignature.validate``.

    Args:
        payload: The arguments by name.
        schema: JSON Schema (2020-12) of an object.
        parameters: Names of the parameters, for the remedy.

    Raises:
        InvalidJob: It does not fit; names the field.
    """
    import difflib

    # 80 ms to import; only a process that does not declare the actor itself comes here.
    from jsonschema_rs import Draft202012Validator

    known: Mapping[str, Any] = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        for name in payload:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise InvalidJob(
                    f"Unknown argument {name!r}.",
                    remedy=f"{hint}The parameters are: {', '.join(parameters) or 'none'}.",
                    field=f"payload.{name}",
                )
    for name in schema.get("required", ()):
        if name not in payload:
            raise InvalidJob(f"The argument {name!r} is missing.", remedy="Add it.", field=f"payload.{name}")
    error = next(iter(Draft202012Validator(schema).iter_errors(payload)), None)
    if error is None:
        return
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    raise InvalidJob(
        f"The argument {where.removeprefix('.')!r} is not valid: {error.message}.",
        remedy="Correct the value.",
        field=f"payload{where}",
    )
