"""``3ox types``: the job types known to the bridge, and one of them in full."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from ingress.cli.payload_arguments import type_names
from ingress.cli.shared import json_option
from ingress.core.bridge import current_bridge
from ingress.core.terminal import emit_json, print_fields, print_table
from ingress.core.text import one_line
from ingress.core.type_info import TypeInfo, all_types, find_type

_UNKNOWN = "-"


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@json_option
def types(*, name: str | None, as_json: bool) -> int:
    """List the job types, or show one.

    The built-in types, and those that workers have published: a type stays known for 30 days after the last
    worker that carried it. WORKERS is the number of running workers that carry it. With NAME, shows its
    parameters, its defaults and the JSON Schema of its payload.
    """
    bridge = current_bridge()
    if name is not None:
        _show_one(find_type(bridge, name), as_json=as_json)
        return 0
    found = all_types(bridge)
    if as_json:
        emit_json({"types": found})
        return 0
    print_table(
        ("NAME", "ORIGIN", "QUEUE", "WORKERS", "WHAT"),
        [
            (info.name, one_line(info.origin), info.queue, _workers(info), one_line(info.summary))
            for info in found
        ],
    )
    return 0


def _workers(info: TypeInfo) -> str:
    return _UNKNOWN if info.workers is None else str(info.workers)


def _retries(info: TypeInfo) -> str:
    own = info.defaults
    backoff = f", after {own.backoff_min_s:g} to {own.backoff_max_s:g} s" if own.max_retries else ""
    return f"{own.max_retries}{backoff}"


def _show_one(info: TypeInfo, *, as_json: bool) -> None:
    if as_json:
        emit_json(info)
        return
    defaults = info.defaults
    print_fields(
        [
            ("type", info.name),
            ("what", one_line(info.summary)),
            ("origin", one_line(info.origin)),
            ("queue", info.queue),
            ("workers", "0: no worker carries it" if info.workers == 0 else _workers(info)),
            ("timeout", f"{defaults.timeout_s:g} s"),
            ("retries", _retries(info)),
            ("priority", str(defaults.priority)),
            *([("example", _example(info))] if info.example else []),
        ]
    )
    properties = info.schema.get("properties", {})
    if properties:
        required = info.schema.get("required", ())
        click.echo()
        print_table(
            ("PARAMETER", "TYPE", "DEFAULT"),
            [
                (
                    one_line(parameter),
                    one_line(_kind(properties.get(parameter, {}), info.schema)),
                    "required" if parameter in required else _default(properties.get(parameter, {})),
                )
                for parameter in info.parameters
            ],
        )
    click.echo()
    click.echo(msgspec.json.format(msgspec.json.encode(info.schema), indent=2).decode())


def _example(info: TypeInfo) -> str:
    """Return a command that submits a job of the type."""
    words = [
        f"{name}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for name, value in info.example.items()
    ]
    project = ["--project", "NAME"] if info.needs_project else []
    return shlex.join(["3ox", "submit", info.name, *words, *project])


def _kind(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Return the JSON types that a parameter accepts, or the values if they are listed."""
    if "enum" in schema:
        return " | ".join(msgspec.json.encode(value).decode() for value in schema["enum"])
    return " | ".join(dict.fromkeys(type_names(schema, root))) or "any"


def _default(schema: Mapping[str, Any]) -> str:
    return one_line(msgspec.json.encode(schema["default"]).decode()) if "default" in schema else _UNKNOWN


COMMANDS = [types]
