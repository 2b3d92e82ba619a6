"""Which providers are configured, and in which order they are asked."""

from __future__ import annotations

import difflib
import os
from typing import NoReturn

from actors.llm.provider import Provider
from ops.errors import JobRefused
from ops.settings import LoadedSettings, OpenAISettings

KNOWN = ("openai", "command")


def choose(loaded: LoadedSettings, wanted: str | None) -> list[Provider]:
    """Give the providers to ask, in order; at least one.

    Args:
        loaded: Settings; keys and base URLs come from the environment where they are absent there.
        wanted: The only provider to ask, by name; None asks those of ``[ask] providers``, or every
            configured one when that is empty.

    Raises:
        JobRefused: A provider is unknown, or not configured, or none is.
    """
    configured = _configured(loaded)
    listed = loaded.settings.ask.providers
    names = [wanted] if wanted is not None else listed
    for name in names:
        if name not in KNOWN:
            _refuse_unknown(name)
        if name not in configured:
            raise JobRefused(f"the provider {name!r} is not configured.", remedy=_how_to(name, loaded))
    if not configured:
        raise JobRefused(
            "no provider of answers is configured.",
            remedy=f"{_how_to('openai', loaded)} Or: {_how_to('command', loaded)}",
        )
    return [configured[name] for name in (names or configured)]


def _configured(loaded: LoadedSettings) -> dict[str, Provider]:
    """Give every configured provider by name, in the order of ``KNOWN``."""
    from actors.llm.local_command import CommandProvider
    from actors.llm.openai_http import OFFICIAL_BASE_URL, OpenAIProvider

    ask = loaded.settings.ask
    found: dict[str, Provider] = {}
    key = os.environ.get(ask.openai.api_key_env, "").strip()
    base_url = _base_url(ask.openai)
    if key != "" or base_url != "":
        found["openai"] = OpenAIProvider(
            base_url=base_url if base_url != "" else OFFICIAL_BASE_URL,
            model=ask.openai.model,
            key=key,
            silence_s=ask.openai.timeout_s,
        )
    if ask.command is not None:
        desk = loaded.workspace.workdesk
        desk.mkdir(parents=True, exist_ok=True)
        found["command"] = CommandProvider(ask.command.argv, cwd=desk, timeout_s=ask.command.timeout_s)
    return found


def _base_url(openai: OpenAISettings) -> str:
    return openai.base_url if openai.base_url != "" else os.environ.get("OPENAI_BASE_URL", "").strip()


def _how_to(name: str, loaded: LoadedSettings) -> str:
    file = loaded.workspace.settings_file
    if name == "openai":
        variable = loaded.settings.ask.openai.api_key_env
        return f"Set {variable} (and OPENAI_BASE_URL for another server) where the workers are started."
    return f'Add [ask.command] with argv = ["PROGRAM", ...] to {file}.'


def _refuse_unknown(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(KNOWN)}."
    raise JobRefused(f"there is no provider {name!r}.", remedy=hint)
