"""The access policy: the rules ``[[policy]]`` of 3ox.toml, and the default where none of them matches.

    [[policy]]
    source = "rest"
    job_type = "shell.cmd"
    command = "git *"
    effect = "approve"

The first rule that matches decides. Where none does, everything is allowed except job types that run programs
(``shell.cmd``, ``task.custom``) from anyone without a login on this machine. An untrusted source may never
submit a command (``shell.cmd``), even if a rule allows it. What a type is, its declaration says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from middleware.job.types import JOB_TYPES
from ops.errors import PolicyDenied
from ops.settings.work import PolicyRule

ALLOW, DENY, APPROVE = "allow", "deny", "approve"
#: Interfaces through which only users with a login on this machine, or 3ox.toml itself, can submit.
LOCAL_SOURCES = frozenset({"cli", "shell", "python", "clock"})
_WILDCARDS = frozenset("*?[")
#: Maximum number of pairs of type and source whose rules are cached; a program may submit with any source.
_CACHED_MAX = 256


class PolicySubject(Protocol):
    """What the policy decides on: a job, or a request that would become one."""

    @property
    def job_type(self) -> str:
        """Name of the job type."""

    @property
    def source(self) -> str:
        """The interface through which it is submitted."""

    @property
    def actor(self) -> str:
        """Who submits it."""

    @property
    def trust(self) -> str:
        """The trust level that the interface assigns to the actor."""

    @property
    def project(self) -> str | None:
        """Its project, if any."""

    @property
    def payload(self) -> Any:
        """Its payload; of a command, rules are matched with ``argv`` and ``env``."""


class PolicyDecision(Struct, frozen=True, gc=False):
    """Decision on a job.

    Attributes:
        effect: ``allow``, ``deny`` or ``approve``.
        rule: Number of the rule in 3ox.toml, from 1; 0 if none of them matched.
    """

    effect: str
    rule: int = 0

    @property
    def name(self) -> str:
        """The decision as receipts name it."""
        return f"rule {self.rule}: {self.effect}" if self.rule else f"default: {self.effect}"


_DEFAULT_ALLOW = PolicyDecision(ALLOW)
_DEFAULT_DENY = PolicyDecision(DENY)

_Test = Callable[[PolicySubject], bool]


class Policy:
    """Decides by the rules; called once for each submission.

    Args:
        rules: The rules, in the order of 3ox.toml.
        runs_programs: Returns whether jobs of a type run programs.
    """

    def __init__(
        self,
        rules: Sequence[PolicyRule],
        *,
        runs_programs: Callable[[str], bool] = JOB_TYPES.runs_programs,
    ) -> None:
        self._rules = rules
        self._runs_programs = runs_programs
        self._cached: dict[tuple[str, str], list[tuple[list[_Test], PolicyDecision]]] = {}

    def decide(self, job: PolicySubject) -> PolicyDecision:
        """Return the decision on a job; takes about half a microsecond if no rule applies."""
        job_type = job.job_type
        if job.trust == "untrusted" and JOB_TYPES.runs_argv(job_type):
            return _DEFAULT_DENY
        if self._rules:
            pair = (job_type, job.source)
            rules = self._cached.get(pair)
            if rules is None:
                rules = self._applicable(*pair)
            for tests, decision in rules:
                for test in tests:
                    if not test(job):
                        break
                else:
                    return decision
        if self._runs_programs(job_type) and (job.trust != "operator" or job.source not in LOCAL_SOURCES):
            return _DEFAULT_DENY
        return _DEFAULT_ALLOW

    def _applicable(self, job_type: str, source: str) -> list[tuple[list[_Test], PolicyDecision]]:
        """Return the rules that can match jobs of this type and source, with their remaining tests."""
        rules = [
            (_tests(rule), PolicyDecision(rule.effect, number))
            for number, rule in enumerate(self._rules, start=1)
            if _matcher(rule.job_type)(job_type)
            and _matcher(rule.source)(source)
            and (rule.command == "*" or JOB_TYPES.runs_argv(job_type))
        ]
        if len(self._cached) >= _CACHED_MAX:
            self._cached.clear()
        self._cached[job_type, source] = rules
        return rules

    def require(self, job: PolicySubject) -> PolicyDecision:
        """Return the decision on a job, unless it is denied.

        Raises:
            PolicyDenied: It is denied; the error names the rule, and the change that would allow the job.
        """
        decision = self.decide(job)
        if decision.effect == DENY:
            raise denial(job, decision)
        return decision


def denial(job: PolicySubject, decision: PolicyDecision) -> PolicyDenied:
    """Return the error that says why a job is denied and who can change that."""
    what = f"{job.job_type} from {job.source}"
    if decision.rule:
        return PolicyDenied(
            f"The policy denies {what}: rule {decision.rule} of 3ox.toml.",
            remedy="The owner of 3ox.toml can put an allowing [[policy]] before that rule.",
        )
    if job.trust == "untrusted" and JOB_TYPES.runs_argv(job.job_type):
        return PolicyDenied(
            f"The policy denies {what}: content of a file or message never runs a command.",
            remedy="Have a trusted user submit the command.",
        )
    return PolicyDenied(
        f"The policy denies {what} unless a rule allows it.",
        remedy=f'The owner of 3ox.toml can add: [[policy]] source = "{job.source}", '
        f'job_type = "{job.job_type}", effect = "allow" (or "approve", to decide each time).',
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


def _command_test(matches: Callable[[str], bool], *, allows: bool) -> _Test:
    import shlex

    def test(job: PolicySubject) -> bool:
        argv: list[str] = job.payload.argv
        if allows and job.trust != "operator" and job.payload.env:
            # With PATH or LD_PRELOAD from the job, the name of a program does not determine what runs.
            return False
        return matches(shlex.join(argv)) or matches(shlex.quote(argv[0]))

    return test


def _matcher(pattern: str) -> Callable[[str], bool]:
    if not _WILDCARDS & set(pattern):
        return pattern.__eq__
    import fnmatch
    import re

    matches = re.compile(fnmatch.translate(pattern)).match
    return lambda text: matches(text) is not None
