"""JSON schemas as OpenAI's strict mode takes them; other servers take those too."""

from __future__ import annotations

from typing import Any

#: Keywords that strict mode refuses, or of which it is not known for every server; what they demand is
#: checked when the answer is there.
_DROPPED = frozenset({"default", "title", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"})


def strict_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Give a schema in which each object requires all of its properties and takes no others.

    Args:
        schema: Of an object; not changed.
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
