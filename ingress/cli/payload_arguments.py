"""Payload of ``3ox submit``: ``NAME=VALUE`` pairs, converted by the JSON Schema of the job type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ingress.core.local_user import utf8
from ops.errors import UsageProblem

#: JSON types of a schema -> the types of values that it accepts; text is what any other value stays.
_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def payload_of(words: Sequence[str], whole: str | None, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload that a command line describes.

    Args:
        words: ``NAME=VALUE``, each. A value becomes an integer, number, boolean, null, array or object if the
            schema has that type for the name and the value is its JSON; otherwise it is a text.
        whole: A JSON object that has further arguments; those of ``words`` replace its own.
        schema: JSON Schema of the payload.

    Raises:
        UsageProblem: A word has no ``=`` or is given twice, or ``whole`` is not a JSON object.
    """
    payload = {} if whole is None else _object(whole)
    named: dict[str, Any] = {}
    for word in words:
        name, equals, text = utf8(word, "the argument").partition("=")
        if not equals or not name:
            raise UsageProblem(
                f"{word!r} is not of the form NAME=VALUE.", remedy="See '3ox types TYPE' for the names."
            )
        if name in named:
            raise UsageProblem(f"The argument {name!r} is given twice.", remedy="Remove one of them.")
        named[name] = converted(text, _schema_of(name, schema), schema)
    return {**payload, **named}


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(utf8(text, "--payload"), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise UsageProblem(
            f"--payload is not a JSON object: {error}.", remedy='Write it as \'{"name": "value"}\'.'
        ) from error


def _schema_of(name: str, schema: Mapping[str, Any]) -> Any:
    properties = schema.get("properties", {})
    return properties[name] if name in properties else schema.get("additionalProperties", {})


def converted(text: str, schema: Any, root: Mapping[str, Any]) -> Any:
    """Return a value of the command line as the JSON value that its schema asks for.

    Args:
        text: The value.
        schema: Its JSON Schema.
        root: The document that ``$ref`` refers to.
    """
    accepted = {kind for name in type_names(schema, root) for kind in _KINDS.get(name, ())}
    if not accepted:
        return text
    try:
        value = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text
    return value if type(value) in accepted else text


def type_names(schema: Any, root: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the JSON types that a schema accepts; none if it accepts any value."""
    if not isinstance(schema, Mapping):
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from type_names(_referred(reference, root), root)
    stated = schema.get("type", ())
    yield from [stated] if isinstance(stated, str) else stated
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(keyword, ()):
            yield from type_names(part, root)
    for value in (*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())):
        yield from (name for name, kinds in _KINDS.items() if type(value) in kinds)


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """Return the definition that a reference such as ``#/$defs/Size`` names; None if there is none."""
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
