"""A local server that implements the Telegram Bot API over HTTP, for ``3ox demo`` and for tests.

    with BotApi() as api:              # BRIDGE_TELEGRAM_API=api.url, BRIDGE_TELEGRAM_TOKEN=api.token
        api.say(42, "hello")           # a user writes to the bot
        api.wait(lambda: "hi" in api.texts(42))
        api.fail("sendMessage", flood(3), times=2)

It behaves like Telegram in everything that a bot can observe: updates stay until a later ``offset`` confirms
them, a poll ends an older one with 409, texts are trimmed and limited to 4096 UTF-16 units, and errors have
Telegram's descriptions.
"""

from ingress.demo.bot_api.faults import Fault, broken, conflict, dropped, flood
from ingress.demo.bot_api.methods import Call, units
from ingress.demo.bot_api.server import BotApi

__all__ = ["BotApi", "Call", "Fault", "broken", "conflict", "dropped", "flood", "units"]
