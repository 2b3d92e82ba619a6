"""A line is a command if its words fit one, a question otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.shell.parser import COMMANDS, ParsedLine, parse_line
from ops.errors import UsageProblem


@pytest.mark.parametrize(
    ("text", "command", "rest"),
    [
        ("jobs", "jobs", ""),
        ("  jobs --status failed ", "jobs", "--status failed"),
        ("jobs 7f3k2m9q", "jobs", "7f3k2m9q"),
        ("job 7f3k", "job", "7f3k"),
        ("job agent:demo:7f3k", "job", "agent:demo:7f3k"),
        ("logs 7f3k2m9q -f", "logs", "7f3k2m9q -f"),
        ("cancel 7f3k 8a2b", "cancel", "7f3k 8a2b"),
        ("cancel", "cancel", ""),
        ("status", "status", ""),
        ("sh ls -l | wc", "sh", "ls -l | wc"),
        ("run demo tidy up", "run", "demo tidy up"),
        ("session new", "session", "new"),
        ("history 5", "history", "5"),
        ("help run", "help", "run"),
        ("exit", "exit", ""),
        ("quit", "exit", ""),
        ("/help me", "help", "me"),
        ("/job hunt", "job", "hunt"),
    ],
)
def test_commands(text: str, command: str, rest: str) -> None:
    """The first word is the command, the rest is as typed."""
    assert parse_line(text) == ParsedLine(command, rest)


@pytest.mark.parametrize(
    "text",
    [
        "what is the time?",
        "help me with this",
        "jobs of the future",
        "job hunting in Berlin",
        "cancel my subscription",
        "status of the project",
        "history of Rome",
        "session one was good",
        "exit polls of 1998",
        "/etc/passwd is what?",
        "Jobs was a founder",
    ],
)
def test_questions(text: str) -> None:
    """Words that do not fit the command make the whole line a question."""
    assert parse_line(f" {text}\n") == ParsedLine("ask", text)


def test_ask_by_name() -> None:
    """The word itself is not part of the question."""
    assert parse_line("ask help") == ParsedLine("ask", "help")


def test_empty_lines_mean_nothing() -> None:
    """They are not questions."""
    assert parse_line("") is None
    assert parse_line(" \t\n") is None


def test_an_unknown_slash_command_is_refused() -> None:
    """The error names the nearest command."""
    with pytest.raises(UsageProblem, match="Did you mean 'status'"):
        parse_line("/statsu")


def test_quotes_are_taken_off() -> None:
    """As in other shells; an open quote is an error with a remedy."""
    assert ParsedLine("sh", "echo 'a b' c\\ d").words() == ["echo", "a b", "c d"]
    with pytest.raises(UsageProblem, match="quote"):
        ParsedLine("sh", "echo 'a").words()


@given(st.text())
def test_every_line_means_something(text: str) -> None:
    """For any text: nothing, a command, or an error with a reason."""
    try:
        line = parse_line(text)
    except UsageProblem:
        assert text.lstrip().startswith("/")
        return
    assert line is None or line.command in COMMANDS
    assert (line is None) == (not text.strip())
