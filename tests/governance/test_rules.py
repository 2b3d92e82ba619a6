"""The rules: which one fits, what holds without any, what no rule can allow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from middleware.job.policy import ALLOW, APPROVE, DENY, Policy
from middleware.job.schema import Job, make_job
from ops.errors import PolicyDenied, SettingsError
from ops.settings.load import load_settings
from ops.settings.work import PolicyRule

NOTHING: Mapping[str, object] = MappingProxyType({})
PAYLOADS: dict[str, dict[str, object]] = {
    "shell.cmd": {"argv": ["git", "status"]},
    "task.custom": {"task": "x"},
    "ask": {"prompt": "x"},
}


def job(job_type: str = "heartbeat", more: Mapping[str, object] = NOTHING, **fields: object) -> Job:
    """Make a job; a command is ``git status``."""
    if job_type == "task.custom":
        fields.setdefault("project", "demo")
    return make_job(job_type, {**PAYLOADS.get(job_type, {}), **more}, **fields)


@pytest.mark.parametrize("job_type", ["shell.cmd", "task.custom"])
@pytest.mark.parametrize("source", ["rest", "telegram", "webhook", "station", "somewhere"])
def test_what_runs_programs_is_denied_from_outside(job_type: str, source: str) -> None:
    """Without a rule, a token or an allowed chat is not enough for a command."""
    for trust in ("member", "operator"):
        assert Policy(()).decide(job(job_type, source=source, trust=trust)).effect == DENY


@pytest.mark.parametrize("source", ["cli", "shell", "python", "clock"])
def test_who_has_a_login_may_run_programs(source: str) -> None:
    """Without a rule the doors of this machine are open, to its operator only."""
    for job_type in ("shell.cmd", "task.custom"):
        assert Policy(()).decide(job(job_type, source=source)).effect == ALLOW
        assert Policy(()).decide(job(job_type, source=source, trust="member")).effect == DENY


@pytest.mark.parametrize("source", ["cli", "rest", "telegram", "webhook", "station"])
def test_what_runs_no_program_is_allowed(source: str) -> None:
    """Questions and heartbeats need no rule."""
    for job_type in ("ask", "heartbeat"):
        assert Policy(()).decide(job(job_type, source=source, trust="untrusted")).effect == ALLOW


def test_the_first_rule_that_fits_decides() -> None:
    """Later ones are not looked at; the decision names the rule by its number."""
    policy = Policy(
        [
            PolicyRule(source="telegram", effect="deny"),
            PolicyRule(source="rest", job_type="shell.*", effect="approve"),
            PolicyRule(source="*", job_type="*", effect="allow"),
        ]
    )
    decided = [
        policy.decide(job("ask", source="telegram", trust="member")),
        policy.decide(job("shell.cmd", source="rest", trust="member")),
        policy.decide(job("task.custom", source="rest", trust="member")),
    ]
    assert [(decision.effect, decision.rule) for decision in decided] == [(DENY, 1), (APPROVE, 2), (ALLOW, 3)]
    assert decided[1].name == "rule 2: approve"


def test_no_rule_lets_a_command_through_that_is_not_trusted() -> None:
    """What came in as a file or text never becomes a command."""
    policy = Policy([PolicyRule(effect="allow")])
    assert policy.decide(job("shell.cmd", source="station", trust="untrusted")).effect == DENY
    with pytest.raises(PolicyDenied, match="never runs a command"):
        policy.require(job("shell.cmd", source="cli", trust="untrusted"))


@pytest.mark.parametrize(
    ("pattern", "argv", "fits"),
    [
        ("git", ["git", "status", "-s"], True),
        ("git", ["gitk"], False),
        ("git", ["/opt/git"], False),
        ("git *", ["git", "status"], True),
        ("git *", ["git"], False),
        ("git *", ["git clean"], False),
        ("git status", ["git", "status"], True),
        ("git status", ["git", "status", "-s"], False),
        ("git status", ["git status"], False),
        ("*/backup.sh", ["/opt/backup.sh", "now"], True),
        ("echo 'a b'", ["echo", "a b"], True),
        ("echo a b", ["echo", "a b"], False),
        ("git [ls]*", ["git", "log\nrm"], False),
    ],
)
def test_a_command_pattern_fits_the_program_or_the_whole_line(
    pattern: str, argv: list[str], *, fits: bool
) -> None:
    """The line is written as a shell would need it, so that one argument cannot look like two."""
    policy = Policy([PolicyRule(source="rest", command=pattern, effect="approve")])
    found = policy.decide(job("shell.cmd", source="rest", more={"argv": argv}))
    assert found.effect == (APPROVE if fits else DENY)


def test_an_allowed_command_brings_no_environment() -> None:
    """PATH or LD_PRELOAD in the job would make another program of the same name."""
    policy = Policy([PolicyRule(source="rest", command="git *", effect="allow")])
    sent: dict[str, object] = {"argv": ["git", "status"], "env": {"PATH": "/home/eve"}}
    assert policy.decide(job("shell.cmd", source="rest", trust="member", more=sent)).effect == DENY
    sent["env"] = {}
    assert policy.decide(job("shell.cmd", source="rest", trust="member", more=sent)).effect == ALLOW


def test_actor_and_project_are_looked_at() -> None:
    """A rule for a project does not fit a job without one; a rule for commands fits no other type."""
    policy = Policy(
        [
            PolicyRule(actor="ci-*", project="web*", effect="allow"),
            PolicyRule(command="git *", effect="approve"),
        ]
    )

    def decide(**fields: object) -> str:
        return policy.decide(job(source="rest", trust="member", **fields)).effect  # type: ignore[arg-type]

    assert decide(job_type="task.custom", actor="ci-1", project="website") == ALLOW
    assert decide(job_type="task.custom", actor="bob", project="website") == DENY
    assert decide(job_type="task.custom", actor="ci-1", project="other") == DENY
    assert decide(job_type="shell.cmd", actor="ci-1") == APPROVE
    assert decide(job_type="heartbeat", actor="ci-1") == ALLOW


def test_a_denial_names_the_rule_and_the_way_out() -> None:
    """Message and remedy are one sentence each, fit for a problem document."""
    with pytest.raises(PolicyDenied) as raised:
        Policy(()).require(job("shell.cmd", source="rest", trust="member"))
    assert raised.value.message == "The policy denies shell.cmd from rest unless a rule allows it."
    assert 'source = "rest"' in raised.value.remedy
    assert raised.value.exit_code == 2
    with pytest.raises(PolicyDenied, match=r"rule 1 of 3ox\.toml"):
        Policy([PolicyRule(effect="deny")]).require(job())


def test_rules_come_from_the_settings(tmp_path: Path) -> None:
    """``[[policy]]`` is read in order; an unknown key and an unknown effect are named."""
    file = tmp_path / "3ox.toml"
    file.write_text('[[policy]]\nsource = "rest"\neffect = "approve"\n[[policy]]\neffect = "deny"\n')
    rules = load_settings(tmp_path, environ={}).settings.policy
    assert [(rule.source, rule.effect) for rule in rules] == [("rest", "approve"), ("*", "deny")]
    file.write_text('[[policy]]\nsource = "rest"\nefect = "approve"\n')
    with pytest.raises(SettingsError, match=r"Unknown key 'efect' in \[policy 1\].*Did you mean 'effect'"):
        load_settings(tmp_path, environ={})
    file.write_text('[[policy]]\neffect = "ask"\n')
    with pytest.raises(SettingsError, match="allow, deny, approve"):
        load_settings(tmp_path, environ={})


def test_the_rules_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    """docs/how-to/policy.md can be copied."""
    page = (Path(__file__).parents[2] / "docs/how-to/policy.md").read_text()
    (tmp_path / "3ox.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    policy = Policy(load_settings(tmp_path, environ={}).settings.policy)

    def decide(**fields: object) -> str:
        return policy.decide(job(trust="member", **fields)).effect  # type: ignore[arg-type]

    assert decide(job_type="shell.cmd", source="rest") == ALLOW
    assert decide(job_type="shell.cmd", source="rest", more={"argv": ["ls"]}) == APPROVE
    assert decide(job_type="task.custom", source="telegram", actor="4711", project="website") == ALLOW
    assert decide(job_type="task.custom", source="telegram", actor="4711") == DENY
