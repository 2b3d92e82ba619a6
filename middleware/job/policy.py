"""Who may have what done: the rules ``[[policy]]`` of 3ox.toml, and what holds where none of them fits.

    [[policy]]
    source = "rest"
    job_type = "shell.cmd"
    command = "git *"
    effect = "approve"

The first rule that fits decides. Where none does, everything is allowed but ``shell.cmd`` and ``task.custom``
from anybody who has no login on this machine. What is not trusted never gets ``shell.cmd``, whatever a rule
says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from middleware.job.types import JOB_TYPES
from ops.errors import PolicyDenied
from ops.settings.work import PolicyRule

ALLOW, DENY, APPROVE = "allow", "deny", "approve"
#: Doors that only somebody with a login on this machine, or 3ox.toml itself, comes through.
LOCAL_SOURCES = frozenset({"cli", "shell", "python", "clock"})
_COMMAND_TYPE = "shell.cmd"
_WILDCARDS = frozenset("*?[")
#: Pairs of type and source that are kept ready; programs may invent sources.
_READY_MAX = 256


class Commanded(Protocol):
    """What the policy looks at: a job."""

    @property
    def job_type(self) -> str:
        """Its type."""

    @property
    def source(self) -> str:
        """The door it came through."""

    @property
    def actor(self) -> str:
        """Who commanded it."""

    @property
    def trust(self) -> str:
        """How much that door knows of them."""

    @property
    def project(self) -> str | None:
        """For which project."""

    @property
    def payload(self) -> Any:
        """What the actor needs; of a ``shell.cmd`` its ``argv`` and ``env`` count."""


class Decision(NamedTuple):
    """What the policy says of a job.

    Attributes:
        effect: ``allow``, ``deny`` or ``approve``.
        rule: Number of the rule in 3ox.toml, from 1; 0 if none of them fitted.
    """

    effect: str
    rule: int = 0

    @property
    def name(self) -> str:
        """How receipts name it."""
        return f"rule {self.rule}: {self.effect}" if self.rule else f"default: {self.effect}"


_DEFAULT_ALLOW = Decision(ALLOW)
_DEFAULT_DENY = Decision(DENY)

_Test = Callable[[Commanded], bool]


class Policy:
    """The rules, made ready to be asked once for each job.

    Args:
        rules: In their order.
    """

    def __init__(self, rules: Sequence[PolicyRule]) -> None:
        self._rules = rules
        self._ready: dict[tuple[str, str], list[tuple[list[_Test], Decision]]] = {}

    def decide(self, job: Commanded) -> Decision:
        """Say what is to become of a job; about half a microsecond for one that no rule is for."""
        job_type = job.job_type
        if job_type == _COMMAND_TYPE and job.trust == "untrusted":
            return _DEFAULT_DENY
        if self._rules:
            way = (job_type, job.source)
            rules = self._ready.get(way)
            if rules is None:
                rules = self._make_ready(*way)
            for tests, decision in rules:
                for test in tests:
                    if not test(job):
                        break
                else:
                    return decision
        if JOB_TYPES.runs_programs(job_type) and (job.trust != "operator" or job.source not in LOCAL_SOURCES):
            return _DEFAULT_DENY
        return _DEFAULT_ALLOW

    def _make_ready(self, job_type: str, source: str) -> list[tuple[list[_Test], Decision]]:
        """Give the rules that can fit such jobs, without the tests whose answer is known already."""
        rules = [
            (_tests(rule), Decision(rule.effect, number))
            for number, rule in enumerate(self._rules, start=1)
            if _matcher(rule.job_type)(job_type)
            and _matcher(rule.source)(source)
            and (rule.command == "*" or job_type == _COMMAND_TYPE)
        ]
        if len(self._ready) >= _READY_MAX:
            self._ready.clear()
        self._ready[job_type, source] = rules
        return rules

    def require(self, job: Commanded) -> Decision:
        """Say what is to become of a job that is not denied.

        Raises:
            PolicyDenied: It is; the error names the rule and what would allow it.
        """
        decision = self.decide(job)
        if decision.effect == DENY:
            raise denial(job, decision)
        return decision


def denial(job: Commanded, decision: Decision) -> PolicyDenied:
    """Put into words why a job is denied, and who can change that."""
    what = f"{job.job_type} from {job.source}"
    if decision.rule:
        return PolicyDenied(
            f"the policy denies {what}: rule {decision.rule} of 3ox.toml.",
            remedy="Whoever keeps 3ox.toml can put an allowing [[policy]] before that rule.",
        )
    if job.job_type == _COMMAND_TYPE and job.trust == "untrusted":
        return PolicyDenied(
            f"the policy denies {what}: what came in as a file or text never runs a command.",
            remedy="Have somebody who is known to the bridge command it.",
        )
    return PolicyDenied(
        f"the policy denies {what} unless a rule allows it.",
        remedy=f'Whoever keeps 3ox.toml can add: [[policy]] source = "{job.source}", '
        f'job_type = "{job.job_type}", effect = "allow" (or "approve", to be asked each time).',
    )


def _tests(rule: PolicyRule) -> list[_Test]:
    tests: list[_Test] = []
    if rule.actor != "*":
        actor = _matcher(rule.actor)
        tests.append(lambda job: actor(job.actor))
    if rule.project != "*":
        project = _matcher(rule.project)
        tests.append(lambda job: job.project is not None and project(job.project))
    if rule.command != "*":
        tests.append(_command_test(_matcher(rule.command), allows=rule.effect == ALLOW))
    return tests


def _command_test(fits: Callable[[str], bool], *, allows: bool) -> _Test:
    import shlex

    def test(job: Commanded) -> bool:
        argv: list[str] = job.payload.argv
        if allows and job.trust != "operator" and job.payload.env:
            # The name of a program says nothing about what runs when PATH or LD_PRELOAD come with the job.
            return False
        return fits(shlex.join(argv)) or fits(shlex.quote(argv[0]))

    return test


def _matcher(pattern: str) -> Callable[[str], bool]:
    if not _WILDCARDS & set(pattern):
        return pattern.__eq__
    import fnmatch
    import re

    matches = re.compile(fnmatch.translate(pattern)).match
    return lambda text: matches(text) is not None
