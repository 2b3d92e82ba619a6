"""``3ox sessions``: list, show and clear conversations."""

from __future__ import annotations

import click

from ingress.cli.shared import for_each, json_option
from ingress.core.bridge import current_bridge
from ingress.core.terminal import emit_json, print_table
from ingress.core.text import count_of, duration, one_line, safe, short_id, since
from middleware.job.sessions import SessionFacts, Sessions
from ops.errors import UsageProblem

#: Sessions that ``clear --all`` reads at a time.
_PAGE = 200


def _sessions() -> Sessions:
    bridge = current_bridge()
    return Sessions(bridge.store, bridge.loaded.settings.key_prefix)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def sessions(ctx: click.Context, *, as_json: bool) -> int:
    """List, show and clear conversations.

    A session keeps the last messages of 'ask --session', of a shell or of a chat. Without a command, lists
    the sessions.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    return _list(1000, as_json=as_json)


@sessions.command(name="list")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=1000,
    help="Maximum number of sessions; 1000 by default.",
)
@json_option
def list_command(*, limit: int, as_json: bool) -> int:
    """List the sessions, the most recently used first."""
    return _list(limit, as_json=as_json)


def _list(limit: int, *, as_json: bool) -> int:
    found = _sessions().latest(limit)
    if as_json:
        emit_json({"sessions": found})
    elif found:
        print_table(
            ("SESSION", "MESSAGES", "KEPT", "LASTED", "IDLE", "EXPIRES IN"),
            [_row(facts) for facts in found],
        )
    else:
        click.echo("There are no sessions.")
    return 0


def _row(facts: SessionFacts) -> tuple[str, ...]:
    return (
        one_line(facts.session_id),
        str(facts.messages),
        str(facts.kept),
        since(facts.began_at, facts.last_at),
        since(facts.last_at),
        duration(facts.expires_s),
    )


@sessions.command()
@click.argument("session_id", metavar="ID")
@json_option
def show(*, session_id: str, as_json: bool) -> int:
    """Show the messages of a session, oldest first."""
    known = _sessions()
    facts = known.facts(session_id)
    messages = known.messages(session_id)
    if as_json:
        emit_json({"session": facts, "messages": messages})
        return 0
    click.echo(
        f"session {one_line(session_id)}: {facts.messages} messages since {facts.began_at},"
        f" {facts.kept} of them kept, expires in {duration(facts.expires_s)} unless continued"
    )
    for message in messages:
        who = "you" if message.role == "user" else "answer"
        source = f", {one_line(message.source)}" if message.source else ""
        click.echo(f"\n[{message.at}] {who} (job {short_id(message.job_id)}{source})")
        click.echo(safe(message.text).rstrip())
    return 0


@sessions.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Clear all sessions.")
@json_option
def clear(*, ids: tuple[str, ...], every: bool, as_json: bool) -> int:
    """Delete the messages of sessions; their jobs stay."""
    if every == bool(ids):
        raise UsageProblem(
            "Give session IDs, or --all, but not both.", remedy="See '3ox sessions clear --help'."
        )
    known = _sessions()
    cleared: list[dict[str, object]] = []

    def clear_one(session_id: str) -> int:
        count = known.clear(session_id)
        cleared.append({"session_id": session_id, "messages": count})
        if not as_json:
            click.echo(f"{one_line(session_id)} cleared, {count_of(count, 'message')}")
        return 0

    code = 0
    if every:
        while page := known.latest(_PAGE):
            code = for_each([facts.session_id for facts in page], clear_one)
            if code != 0:
                break
    else:
        code = for_each(ids, clear_one)
    if as_json:
        emit_json({"cleared": cleared})
    elif every and not cleared:
        click.echo("There are no sessions.")
    return code


COMMANDS: list[click.Command] = [sessions]
