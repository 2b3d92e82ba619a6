"""Which destinations a job gets when it is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from middleware.destinations import Destinations
from middleware.job.schema import make_job
from ops.errors import SettingsError
from ops.settings.results import DeliverSettings, NotifySettings, WebhookSettings
from ops.settings.rows import rows_of
from ops.settings.table import Settings
from tests.egress.conftest import Configured

PAYLOADS: dict[str, dict[str, object]] = {
    "ask": {"prompt": "x"},
    "shell.cmd": {"argv": ["true"]},
    "heartbeat": {},
}


def destinations(settings: Settings, job_type: str, **fields: object) -> list[str]:
    """Return a job's destinations as a list."""
    text = Destinations(settings).of(make_job(job_type, PAYLOADS[job_type], **fields))
    return text.split(",") if text else []


def test_answers_go_to_the_outbox_and_commands_do_not() -> None:
    """Without settings: what has a result for people is written down."""
    assert destinations(Settings(), "ask") == ["outbox/*"]
    assert destinations(Settings(), "shell.cmd") == []
    assert destinations(Settings(), "heartbeat") == []
    assert destinations(Settings(deliver=DeliverSettings(types=["*"])), "shell.cmd") == ["outbox/*"]


def test_webhooks_and_notifications_name_ends_and_addresses() -> None:
    """One entry per wanted final state, one destination per address."""
    settings = Settings(
        deliver=DeliverSettings(types=[]),
        webhook=[
            WebhookSettings(name="ci", url="http://ci/", when=["failed", "completed", "failed"]),
            WebhookSettings(name="asks", url="http://x/", when=["completed"], types=["ask"]),
        ],
        notify=[
            NotifySettings(urls=["json://a", "json://b"]),
            NotifySettings(urls=["json://c"], name="ops", types=["shell.*"]),
        ],
    )
    assert destinations(settings, "shell.cmd") == [
        "webhook:ci/failed",
        "webhook:ci/completed",
        "notify:1:1/failed",
        "notify:1:2/failed",
        "notify:ops:1/failed",
    ]
    assert "webhook:asks/completed" in destinations(settings, "ask")


def test_a_chat_is_answered_where_the_job_says_so() -> None:
    """The bot answers its own jobs itself."""
    assert destinations(Settings(), "heartbeat", source="telegram") == []
    reply = {"reply": "egress", "chat_id": "5"}
    assert destinations(Settings(), "ask", source="telegram", metadata=reply) == ["outbox/*", "telegram/*"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ('[[webhook]]\nname = "a"\n', "lacks the required key 'url'"),
        ('[[webhook]]\nname = "a"\nurl = "ftp://x"\n', "has the wrong form"),
        ('[[webhook]]\nname = "a b"\nurl = "http://x"\n', "has the wrong form"),
        ('[[webhook]]\nname = "a"\nurl = "http://x"\nwen = []\n', "Did you mean 'when'"),
        (
            '[[webhook]]\nname="a"\nurl="http://x"\n[[webhook]]\nname="a"\nurl="http://y"\n',
            "have the name 'a'",
        ),
        ("[[notify]]\nurls = []\n", "is not valid"),
        ('[deliver]\nformat = "pdf"\n', "markdown, json"),
    ],
)
def test_wrong_settings_are_named(configured: Configured, settings: str, complaint: str) -> None:
    """An error names the key and what would be right."""
    with pytest.raises(SettingsError, match=complaint):
        configured(settings)


def test_the_secrets_of_urls_are_not_shown(configured: Configured) -> None:
    """``3ox config`` masks the addresses of notifications."""
    loaded = configured('[[notify]]\nurls = ["ntfy://user:hunter22@host/topic"]\n')
    shown = next(row.value for row in rows_of(loaded) if row.name == "notify")
    assert "hunter22" not in str(shown)
    assert shown[0]["when"] == ["failed"]


def test_the_settings_of_the_page_are_valid(configured: Configured) -> None:
    """docs/how-to/destinations.md can be copied."""
    page = (Path(__file__).parents[2] / "docs/how-to/destinations.md").read_text()
    settings = configured(page.split("```toml\n")[1].split("```")[0]).settings
    assert destinations(settings, "ask") == ["outbox/*", "notify:ops:1/failed"]
