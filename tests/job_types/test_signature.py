"""Arguments of actors: by name and back, and refused where they do not fit, with the name of the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.job.signature import ActorSignature
from ops.errors import InvalidJob


@dataclass
class Point:
    """A place."""

    x: int
    y: int = 0


class Unknown:
    """A type that no schema describes."""


def plain(path: str, size: int = 128, *, mode: Literal["fit", "fill"] = "fit") -> dict[str, Any]:
    """Take what most actors take."""
    return {"path": path, "size": size, "mode": mode}


def untyped(a: Any, b: Any = None, *rest: Any, c: Any, **more: Any) -> Any:
    """Take anything."""
    return a, b, rest, c, more


def positional_only(a: int, b: int = 2, /, c: int = 3) -> int:
    """Take two that cannot be named."""
    return a + b + c


def rich(point: Point, when: datetime, tags: list[str], other: Unknown | None = None) -> None:
    """Take structured values, and one that cannot be checked."""


class Generic:
    """What Dramatiq calls a generic actor: an instance with ``perform``."""

    def perform(self, name: str, count: int = 1) -> str:
        """Do it."""
        return name * count

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        """Call it as Dramatiq does."""
        return self.perform(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "payload"),
    [
        (plain, ("a.png",), {"size": 64}, {"path": "a.png", "size": 64}),
        (plain, (), {"path": "a"}, {"path": "a"}),
        (untyped, (1, 2, 3, 4), {"c": 5, "d": 6}, {"a": 1, "b": 2, "*rest": [3, 4], "c": 5, "d": 6}),
        (positional_only, (1,), {"c": 4}, {"a": 1, "c": 4}),
        (Generic(), ("x",), {"count": 2}, {"name": "x", "count": 2}),
        (lambda: None, (), {}, {}),
    ],
)
def test_arguments_come_back_as_they_were_sent(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], payload: dict[str, Any]
) -> None:
    """By name in the payload, and by position again for the call."""
    signature = ActorSignature(function)
    bound = signature.bind(args, kwargs)
    assert bound.payload == payload
    signature.validate(bound.payload)
    assert signature.unbind(bound.payload, bound.positional) == (args, kwargs)


@given(
    st.lists(st.integers(), max_size=4),
    st.dictionaries(st.sampled_from(["a", "b", "d", "e"]), st.integers(), max_size=3),
)
def test_every_call_that_python_takes_comes_back(args: list[int], extra: dict[str, int]) -> None:
    """Whatever can be called can be sent, and what is called is what was sent."""
    signature = ActorSignature(untyped)
    kwargs = {"c": 0, **extra}
    try:
        wanted = untyped(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidJob):
            signature.validate(signature.bind(tuple(args), kwargs).payload)
        return
    bound = signature.bind(tuple(args), kwargs)
    signature.validate(bound.payload)
    back, named = signature.unbind(bound.payload, bound.positional)
    assert untyped(*back, **named) == wanted


@pytest.mark.parametrize(
    ("function", "payload", "field", "text"),
    [
        (plain, {}, "payload.path", "The argument 'path' is missing."),
        (plain, {"pth": "a.png"}, "payload.pth", "Unknown argument 'pth'."),
        (plain, {"path": "a", "size": "64"}, "payload.size", "Expected `int`, got `str`"),
        (plain, {"path": "a", "mode": "crop"}, "payload.mode", "Invalid enum value 'crop'"),
        (plain, {"path": b"a"}, "payload.path", "a bytes has no JSON form"),
        (untyped, {"a": float("nan"), "c": 1}, "payload.a", "nan has no JSON form"),
        (untyped, {"a": [1, {2: 3}], "c": 1}, "payload.a[1]", "the key 2 is not a string"),
        (untyped, {"a": 1, "c": Point(1)}, "payload.c", "a Point has no JSON form"),
        (rich, {"point": {"x": "1"}, "when": "2026-11-30", "tags": []}, "payload.point.x", "Expected `int`"),
        (rich, {"point": {"x": 1}, "when": "soon", "tags": []}, "payload.when", "Invalid RFC3339"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_field(
    function: Callable[..., Any], payload: dict[str, Any], field: str, text: str
) -> None:
    """The error names the argument, by its path."""
    with pytest.raises(InvalidJob) as refused:
        ActorSignature(function).validate(payload)
    assert refused.value.field == field
    assert text in refused.value.message


def test_the_nearest_name_is_in_the_remedy() -> None:
    """A mistyped argument is answered with the parameter that was meant."""
    with pytest.raises(InvalidJob) as refused:
        ActorSignature(plain).validate({"pth": "a.png"})
    assert refused.value.remedy == "Did you mean 'path'? The parameters are: path, size, mode."


def test_too_many_and_doubled_arguments_are_refused() -> None:
    """As Python refuses them, when the message is sent and not when it is run."""
    signature = ActorSignature(plain)
    with pytest.raises(InvalidJob, match="takes 2 positional arguments, not 3"):
        signature.bind((1, 2, 3), {})
    with pytest.raises(InvalidJob, match="'path' is given twice"):
        signature.bind(("a",), {"path": "b"})


def test_a_type_that_no_schema_describes_takes_any_value() -> None:
    """A hint that cannot be checked is no reason to refuse the actor."""
    signature = ActorSignature(rich)
    signature.validate(
        {"point": {"x": 1}, "when": "2026-11-30T10:00:00Z", "tags": ["a"], "other": {"any": 1}}
    )


def test_the_schema_has_types_defaults_and_what_is_required() -> None:
    """Interfaces build forms and help from it."""
    assert ActorSignature(plain).json_schema() == {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "size": {"type": "integer", "default": 128},
            "mode": {"enum": ["fill", "fit"], "default": "fit"},
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    schema = ActorSignature(untyped).json_schema()
    assert schema["properties"]["*rest"] == {"type": "array"}
    assert schema["additionalProperties"] is True
    assert set(schema["required"]) == {"a", "c"}
    nested = ActorSignature(rich).json_schema()
    assert nested["properties"]["point"] == {"$ref": "#/$defs/Point"}
    assert nested["$defs"]["Point"]["required"] == ["x"]
