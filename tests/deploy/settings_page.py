"""Generates docs/reference/configuration.md from the settings tables, so that a change shows in review.

Run ``python -m tests.deploy.settings_page`` from the repository's root after a change; a test compares.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from ops.settings.kinds import SECRET
from ops.settings.load import ENV_FOREIGN
from ops.settings.table import Settings
from tests.support import ROOT

DOCUMENT = ROOT / "docs/reference/configuration.md"
_INTRODUCTION = """\
# Configuration

Every setting, generated from `ops/settings/table.py` by `make help-pages`; a test fails if the page is out of
date.

Settings come from `3ox.toml` in the workspace, from the environment (`BRIDGE_` and the name in upper case)
and from options of the command line; later sources override earlier ones. Lists in the environment
are separated by commas. `3ox config` shows each setting with its value and source.
An unknown key is an error that names the nearest known one.

The file is UTF-8, with or without a byte order mark, and with any line ends; errors name the line.
Surrounding white space, carriage returns and byte order marks are removed from values of the environment, and
an empty value counts as unset.

A change of projects, policy rules, schedules or LLM providers takes effect when `3ox.toml` is saved; every
other setting takes effect when the process that uses it is restarted. `BRIDGE_HOME` is the workspace, by
default `~/cmd.bridge`.

```toml
# ~/cmd.bridge/3ox.toml
workers = 4
store_fsync = "always"

[types."shell.cmd"]
timeout_s = 120

[projects.web]
path = "~/src/web"
command = ["make", "{task}"]

[resources]
gpu = 1

[[schedule]]
id = "nightly"
cron = "30 2 * * *"
job = { job_type = "task.custom", project = "web", payload = { task = "backup" } }
```
"""
_FOREIGN = """\
## Other environment variables

{names}
are the variables that the providers' own tools use; see [ask.md](../how-to/ask.md). With the extra `otel`,
OpenTelemetry's variables apply (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, ...); see
[metrics.md](../how-to/metrics.md).

Proxies and certificates: see [operate.md](../how-to/operate.md#proxies-and-certificates).
"""


def render() -> str:
    """Return the whole page."""
    scalars: list[msgspec.structs.FieldInfo] = []
    tables: list[msgspec.structs.FieldInfo] = []
    for field in msgspec.structs.fields(Settings):
        (tables if _tables_in(field.type) or _is_mapping(field.type) else scalars).append(field)
    parts = [_INTRODUCTION, "## Top level\n\n" + _rows(scalars, environment=True)]
    parts += [text for field in tables for text in _sections(field.name, field.type, _help(field.type))]
    foreign = ", ".join(f"`{name}`" for name in ENV_FOREIGN)
    parts.append(_FOREIGN.format(names=foreign))
    return "\n".join(parts)


def _sections(path: str, kind: Any, description: str) -> Iterator[str]:
    """Yield the section of a table and those of its subtables."""
    title, struct = _titled(path, kind)
    if struct is None:
        yield f"## `[{path}]`\n\n{description}\n"
        return
    about = (struct.__doc__ or "").strip().split("\n\n")
    text = "\n\n".join(" ".join(part.split()) for part in about if "Attributes:" not in part)
    fields = msgspec.structs.fields(struct)
    own = [field for field in fields if not _tables_in(field.type)]
    yield f"## `{title}`\n\n{text.replace('``', '`')}\n" + (f"\n{_rows(own)}" if own else "")
    below = title.strip("[]")
    for field in fields:
        if _tables_in(field.type):
            yield from _sections(f"{below}.{field.name}", field.type, _help(field.type))


def _titled(path: str, kind: Any) -> tuple[str, type[msgspec.Struct] | None]:
    bare = _bare(kind)
    structs = _tables_in(kind)
    struct = structs[0] if structs else None
    if get_origin(bare) is dict and struct is not None:
        return f"[{path}.NAME]", struct
    if get_origin(bare) is list and struct is not None:
        return f"[[{path}]]", struct
    return f"[{path}]", struct


def _rows(fields: Any, *, environment: bool = False) -> str:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in fields:
        default = _default(field)
        secret = " *Secret.*" if environment and _meta(field.type).extra == SECRET else ""
        meaning = _help(field.type).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {_type(field.type)} | {default} | {meaning}{secret} |")
    return "\n".join(lines) + "\n"


def _default(field: Any) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        value = msgspec.to_builtins(field.default_factory())
    elif field.default is not msgspec.NODEFAULT:
        value = msgspec.to_builtins(field.default)
    else:
        return "*required*"
    if value is None:
        return ""
    if isinstance(value, list) and len(value) > 4:
        return ", ".join(f"`{item}`" for item in value)
    return f"`{json.dumps(value)}`"


def _type(kind: Any) -> str:
    bare = _bare(kind)
    origin = get_origin(bare)
    if origin is Literal:
        return " \\| ".join(f"`{choice}`" for choice in get_args(bare))
    if origin is list:
        return f"list of {_type(get_args(bare)[0])}"
    if origin is dict:
        return "table"
    if origin in {Union, types.UnionType}:
        return " or ".join(_type(arm) for arm in get_args(bare) if arm is not type(None))
    bounds = [
        meta for meta in _metas(kind) if meta.ge is not None or meta.gt is not None or meta.le is not None
    ]
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(bare, "any") + (f", {_bounds(bounds[0])}" if bounds else "")


def _bounds(meta: Meta) -> str:
    least = "" if meta.ge is None else f"{meta.ge:,} "
    least = f"above {meta.gt:,} " if meta.gt is not None else least
    if meta.le is None:
        return f"{least}or more".replace("above 0 or more", "above 0") if least else ""
    return f"{least}to {meta.le:,}"


def _tables_in(kind: Any) -> list[type[msgspec.Struct]]:
    """Return the structs of which a setting is one, a list or a mapping."""
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return [bare]
    if get_origin(bare) in {list, dict, Union, types.UnionType}:
        return [found for arm in get_args(bare) for found in _tables_in(arm)]
    return []


def _is_mapping(kind: Any) -> bool:
    return get_origin(_bare(kind)) is dict


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    if get_origin(kind) in {Union, types.UnionType} and len(arms) == 1:
        return _bare(arms[0])
    return kind


def _metas(kind: Any) -> list[Meta]:
    return [meta for level in _levels(kind) for meta in level]


def _levels(kind: Any) -> Iterator[list[Meta]]:
    """Yield the annotations of a type from the outside in; on one level the inner one comes first."""
    while True:
        if get_origin(kind) is Annotated:
            yield [extra for extra in get_args(kind)[1:] if isinstance(extra, Meta)]
            kind = get_args(kind)[0]
        elif get_origin(kind) in {Union, types.UnionType}:
            kind = next(arm for arm in get_args(kind) if arm is not type(None))
        else:
            return


def _meta(kind: Any) -> Meta:
    for level in _levels(kind):
        described = [meta for meta in level if meta.description is not None]
        if described:
            return described[-1]
    return Meta()


def _help(kind: Any) -> str:
    return _meta(kind).description or ""


if __name__ == "__main__":
    DOCUMENT.write_text(render())
