"""JSON schemas in the form of OpenAI's strict mode, which other servers accept too."""

from __future__ import annotations

from typing import Any

#: Keywords that strict mode rejects, or may reject on some servers; their constraints are checked when the
#: answer is decoded.
_DROPPED = frozenset({"default", "title", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"})


def strict_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema in which each object requires all its properties and allows no others.

    Args:
        schema: Schema of an object.
    """
    strict: dict[str, Any] = _strict(schema)
    return strict


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {
        name: {key: _strict(item) for key, item in value.items()}
        if name in ("properties", "$defs")
        else _strict(value)
        for name, value in node.items()
        if name not in _DROPPED
    }
    if "properties" in made:
        made["required"] = list(made["properties"])
        made["additionalProperties"] = False
    return made
