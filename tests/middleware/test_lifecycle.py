"""What a worker says when it starts."""

from __future__ import annotations

import pytest

from middleware.lifecycle import _name_unused_queues

DECLARED = {"jobs", "media"}


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"media"}, ""),
        ({"media", "medai"}, "the queue 'medai' of --queues; its queues are: jobs, media.\n"),
        (
            {"nope", "medai"},
            "'medai', 'nope' of --queues; its queues are: jobs, media. This worker fetches no",
        ),
    ],
)
def test_queues_that_no_actor_uses_are_named(
    chosen: set[str], said: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """On the terminal and in the log, beside those that there are."""
    _name_unused_queues(chosen, DECLARED)
    shown = capsys.readouterr().err
    assert said in shown
    assert bool(shown) is bool(said)
    assert len(caplog.records) == bool(said)
