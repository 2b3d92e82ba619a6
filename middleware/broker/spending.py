"""The typed face of ``spend.lua``: what answers of models take, counted against budgets."""

from __future__ import annotations

from msgspec import Struct

from middleware.broker.scripts import Scripts

#: Money is counted in whole billionths of a dollar: a token of the cheapest models costs some ten of them.
NANO_PER_USD = 1_000_000_000


class Limits(Struct, frozen=True, kw_only=True):
    """Budgets; None is none.

    Attributes:
        day_tokens: Tokens a day.
        day_nano_usd: Money a day.
        job_tokens: Tokens a job, all its attempts together.
        job_nano_usd: Money a job.
    """

    day_tokens: int | None = None
    day_nano_usd: int | None = None
    job_tokens: int | None = None
    job_nano_usd: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is any budget."""
        return any(limit is not None for limit in (self.day_tokens, self.day_nano_usd)) or self.of_job

    @property
    def of_job(self) -> bool:
        """Whether there is a budget of a job."""
        return self.job_tokens is not None or self.job_nano_usd is not None


class Spender(Struct, frozen=True, kw_only=True):
    """Who spends.

    Attributes:
        day: YYYY-MM-DD, UTC; of the claim, also when it is settled after midnight.
        job_id: The job.
        attempt: Its attempt, which asks one question at a time.
    """

    day: str
    job_id: str
    attempt: int


class Claimed(Struct, frozen=True, kw_only=True):
    """Reply of ``claim``.

    Attributes:
        outcome: ``ok``, ``spent`` or ``held`` (other jobs hold the rest for their answers).
        granted: Tokens that the answer may have.
        budget: Which budget stands in the way: ``day_tokens``, ``day_usd``, ``job_tokens``, ``job_usd``.
        used: Of it.
        limit: Of it.
    """

    outcome: str
    granted: int = 0
    budget: str = ""
    used: int = 0
    limit: int = 0


class DayUse(Struct, frozen=True, kw_only=True):
    """What a day's answers have taken; free ones are not counted."""

    answers: int = 0
    tokens: int = 0
    nano_usd: int = 0


def claim(
    scripts: Scripts,
    spender: Spender,
    limits: Limits,
    *,
    question: int,
    answer: int,
    least: int,
    nano_in: int,
    nano_out: int,
    hold_ms: int,
) -> Claimed:
    """Hold back what an answer may take.

    Args:
        scripts: Of the bridge.
        spender: Who asks.
        limits: The budgets.
        question: Its length in tokens, estimated.
        answer: Bound on the answer's length that is wanted.
        least: Bound below which asking is no use.
        nano_in: Price of a token of the question, in 10^-9 dollars.
        nano_out: Price of a token of the answer.
        hold_ms: When it counts as spent if nobody settles it.

    Raises:
        StoreUnreachable: Claiming again is safe.
    """
    bounds = (limits.day_tokens, limits.day_nano_usd, limits.job_tokens, limits.job_nano_usd)
    reply = scripts.run(
        "spend",
        "claim",
        spender.day,
        spender.job_id,
        spender.attempt,
        question,
        answer,
        least,
        nano_in,
        nano_out,
        *(-1 if bound is None else bound for bound in bounds),
        hold_ms,
    )
    words = [word.decode() for word in reply]
    if words[0] == "ok":
        return Claimed(outcome="ok", granted=int(words[1]))
    if words[0] == "held":
        return Claimed(outcome="held", budget=words[1])
    return Claimed(outcome="spent", budget=words[1], used=int(words[2]), limit=int(words[3]))


def settle(scripts: Scripts, spender: Spender, *, tokens: int, nano_usd: int, count_job: bool) -> bool:
    """Replace what was held back by what the answer took.

    Returns:
        False if that has been done before.

    Raises:
        StoreUnreachable: Settling again is safe.
    """
    reply = scripts.run(
        "spend",
        "settle",
        spender.day,
        spender.job_id,
        spender.attempt,
        tokens,
        nano_usd,
        int(count_job),
    )
    return bool(reply[0] == b"settled")


def day_use_command(prefix: str, day: str) -> tuple[str, ...]:
    """Give the command that reads what the answers of a day have taken, for use in a pipeline.

    Args:
        prefix: Of all keys.
        day: YYYY-MM-DD, UTC.
    """
    return ("HMGET", f"{prefix}ask:use:{day}", "answers", "tokens", "nano_usd")


def read_day_use(reply: list[bytes | None]) -> DayUse:
    """Read the reply to ``day_use_command``."""
    answers, tokens, nano_usd = (0 if value is None else int(value) for value in reply)
    return DayUse(answers=answers, tokens=tokens, nano_usd=nano_usd)
