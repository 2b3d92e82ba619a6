"""Arguments of an actor: by name in a job's payload, by position and name in a Dramatiq message.

A job of a user's type carries the call's arguments by name, so that a person can write them down and every
interface can validate them. The signature is the schema: type hints are checked where the job is submitted.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from ops.errors import InvalidJob

_Parameter = inspect.Parameter
_BY_POSITION = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD)


class Arguments(NamedTuple):
    """Arguments of one call.

    Attributes:
        payload: All of them by name; those of ``*args`` are a list under the name ``*args``.
        positional: How many named parameters, from the first, were passed by position.
    """

    payload: dict[str, Any]
    positional: int


class ActorSignature:
    """Parameters of an actor.

    Args:
        function: What the actor runs: a function, or an instance with a ``perform`` method.

    Attributes:
        parameters: Names of the parameters in their order, ``*args`` with its star, without ``**kwargs``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        called = getattr(function, "perform", function)
        signature = inspect.signature(called)
        hints = _hints(called)
        self._signature = signature
        items = signature.parameters.values()
        self._by_position = [item.name for item in items if item.kind in _BY_POSITION]
        self._positional_only = sum(item.kind is _Parameter.POSITIONAL_ONLY for item in items)
        self._var_positional = _first(items, _Parameter.VAR_POSITIONAL)
        var_keyword = _first(items, _Parameter.VAR_KEYWORD)
        self._extra_type: Any = None if var_keyword is None else hints.get(var_keyword, Any)
        self._takes_any_name = var_keyword is not None
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
        self._star = f"*{self._var_positional}"
        self._star_type: Any = Any if self._var_positional is None else hints.get(self._var_positional, Any)
        self._defaults: dict[str, Any] = {}
        for item in items:
            if item.kind in _VARIADIC:
                continue
            hint = hints.get(item.name, Any)
            if item.default is _Parameter.empty:
                fields.append((item.name, hint))
            else:
                fields.append((item.name, hint | UnsetType if hint is not Any else Any, UNSET))
                self._defaults[item.name] = item.default
        self.parameters = [field[0] for field in fields]
        self._struct = msgspec.defstruct(
            "Arguments", fields, kw_only=True, forbid_unknown_fields=not self._takes_any_name, gc=False
        )
        if self._var_positional is not None:
            self.parameters.insert(len(self._by_position), self._star)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Return the arguments of a call by name; they are not validated.

        Raises:
            InvalidJob: The call does not fit the parameters.
        """
        named = dict(zip(self._by_position, args, strict=False))
        rest = list(args[len(self._by_position) :])
        if rest and self._var_positional is None:
            most = len(self._by_position)
            raise InvalidJob(
                f"The actor takes {most} positional argument{'' if most == 1 else 's'}, not {len(args)}.",
                remedy=f"Its parameters are: {', '.join(self.parameters) or 'none'}.",
                field=f"payload[{most}]",
            )
        for name in kwargs:
            if name in named:
                raise InvalidJob(
                    f"The argument {name!r} is given twice, by position and by name.",
                    remedy="Remove one of them.",
                    field=f"payload.{name}",
                )
        payload = {**named, **kwargs}
        if rest:
            payload[self._star] = rest
        return Arguments(payload, len(named))

    def unbind(self, payload: Mapping[str, Any], positional: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the named arguments with which the actor is called; reverses ``bind``."""
        named = dict(payload)
        rest = named.pop(self._star, []) if self._var_positional is not None else []
        # What follows by position needs all parameters before it by position too.
        count = max(positional, self._positional_only) if not rest else len(self._by_position)
        args: list[Any] = []
        for name in self._by_position[:count]:
            if name not in named:
                break
            args.append(named.pop(name))
        return (*args, *rest), named

    def validate(self, payload: Mapping[str, Any]) -> None:
        """Check the arguments against the parameters and their type hints.

        Raises:
            InvalidJob: An argument is missing, unknown, of another type, or not JSON; the error names it.
        """
        _require_json(payload, "payload")
        named = dict(payload)
        if self._var_positional is not None:
            rest = named.pop(self._star, [])
            _convert(rest, types.GenericAlias(list, (self._star_type,)), f"payload.{self._star}")
        if not self._takes_any_name:
            self._refuse_unknown(named)
        for name in self._struct.__struct_fields__:
            if name not in named and name not in self._defaults:
                raise InvalidJob(
                    f"The argument {name!r} is missing.", remedy="Add it.", field=f"payload.{name}"
                )
        _convert(named, self._struct, "payload")
        if self._takes_any_name and self._extra_type is not Any:
            for name in named.keys() - set(self._struct.__struct_fields__):
                _convert(named[name], self._extra_type, f"payload.{name}")

    def _refuse_unknown(self, named: Mapping[str, Any]) -> None:
        known = self._struct.__struct_fields__
        for name in named:
            if name in known:
                continue
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise InvalidJob(
                f"Unknown argument {name!r}.",
                remedy=f"{hint}The parameters are: {', '.join(self.parameters) or 'none'}.",
                field=f"payload.{name}",
            )

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the payload."""
        (schema,), components = msgspec.json.schema_components([self._struct], ref_template="#/$defs/{name}")
        # The struct itself is one of the components, and the schema a reference to it.
        body = dict(components.pop("Arguments")) if "$ref" in schema else dict(schema)
        body.pop("title", None)
        properties: dict[str, Any] = dict(body.get("properties", {}))
        for name, default in self._defaults.items():
            if _is_json(default):
                properties[name] = {**properties[name], "default": default}
        if self._var_positional is not None:
            star: dict[str, Any] = {"type": "array"}
            if self._star_type is not Any:
                star["items"] = msgspec.json.schema(self._star_type)
            properties[self._star] = star
        body["properties"] = properties
        body["additionalProperties"] = self._takes_any_name
        if components:
            body["$defs"] = components
        return body


def _first(items: typing.Iterable[inspect.Parameter], kind: Any) -> str | None:
    return next((item.name for item in items if item.kind is kind), None)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints that can be checked; any other parameter takes any JSON value."""
    try:
        found = typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 (a hint may name what is imported for type checkers only)
        return {}
    return {name: hint for name, hint in found.items() if name != "return" and _can_be_checked(hint)}


def _can_be_checked(hint: Any) -> bool:
    """Return whether msgspec knows this type, down to its parts."""
    try:
        msgspec.json.schema(hint)
        msgspec.json.Decoder(hint)
    except TypeError:
        return False
    return True


def _convert(value: Any, hint: Any, where: str) -> None:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        complaint, _, path = str(error).partition(" - at `$")
        field = f"{where}{path.rstrip('`')}"
        raise InvalidJob(
            f"The argument {field.removeprefix('payload.')!r} is not valid: {complaint}.",
            remedy="Correct the value.",
            field=field,
        ) from error


def _is_json(value: Any) -> bool:
    try:
        _require_json(value, "")
    except InvalidJob:
        return False
    return True


def _require_json(value: Any, where: str) -> None:
    """Refuse what does not survive the way through JSON unchanged.

    Raises:
        InvalidJob: Names the place.
    """
    # Exact types: a subclass, such as an Enum, would arrive as its base.
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    if kind is float:
        if math.isfinite(value):
            return
        problem = f"{value} has no JSON form"
    elif kind is list or kind is tuple:
        for at, item in enumerate(value):
            _require_json(item, f"{where}[{at}]")
        return
    elif kind is dict or isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str:
                problem = f"the key {key!r} is not a string"
                break
            _require_json(item, f"{where}.{key}")
        else:
            return
    else:
        problem = f"a {kind.__qualname__} has no JSON form"
    raise InvalidJob(
        f"The argument {where.removeprefix('payload.')!r} cannot be sent: {problem}.",
        remedy="Pass strings, numbers, booleans, null, lists and dictionaries of these.",
        field=where,
    )
