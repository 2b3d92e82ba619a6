"""``3ox token``: create, list and revoke tokens of the REST API."""

from __future__ import annotations

from typing import Any

import click

from ingress.cli.shared import json_option
from ingress.core.terminal import emit_json
from ops.settings.load import load_settings
from ops.tokens import Scope, TokenEntry, Tokens


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def token(ctx: click.Context, *, as_json: bool) -> None:
    """Create, list and revoke tokens of the REST API; without a command, list them."""
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@token.command("make")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["view", "submit", "admin"]),
    default="submit",
    show_default=True,
    help="view: read; submit: also submit jobs; admin: also approve.",
)
@json_option
def make(*, name: str, scope: Scope, as_json: bool) -> int:
    """Create a token called NAME and print it; it cannot be shown again."""
    made = _tokens().make(name, scope)
    if as_json:
        emit_json({"name": name, "scope": scope, "token": made})
    else:
        click.echo(made)
    return 0


@token.command("list")
@json_option
def list_(*, as_json: bool) -> int:
    """List all tokens, without their secrets."""
    return _list(as_json=as_json)


@token.command("revoke")
@click.argument("name")
@json_option
def revoke(*, name: str, as_json: bool) -> int:
    """Revoke the token called NAME, at once and for good."""
    found = _tokens().revoke(name)
    if as_json:
        emit_json({"revoked": _shown(found)})
    else:
        click.echo(f"Revoked {found.name} ({found.token_id}).")
    return 0


def _tokens() -> Tokens:
    loaded = load_settings()
    loaded.workspace.create()
    return Tokens(loaded.workspace, loaded.settings.api_token)


def _list(*, as_json: bool) -> int:
    entries = _tokens().entries()
    if as_json:
        emit_json({"tokens": [_shown(entry) for entry in entries]})
        return 0
    for entry in entries:
        click.echo(f"{entry.token_id}  {entry.scope:<6}  {entry.created_at}  {entry.name}")
    if not entries:
        click.echo("There are no tokens; '3ox token make NAME' creates one.")
    return 0


def _shown(entry: TokenEntry) -> dict[str, Any]:
    return {
        "id": entry.token_id,
        "name": entry.name,
        "scope": entry.scope,
        "created_at": entry.created_at,
    }


COMMANDS = [token]
