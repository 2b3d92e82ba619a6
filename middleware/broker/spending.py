"""What answers of models cost, counted against budgets; typed calls of ``spend.lua``."""

from __future__ import annotations

from msgspec import Struct

from middleware.broker.scripts import Scripts

#: Money is counted in whole nano-dollars; a token of the cheapest models costs about ten.
NANO_PER_USD = 1_000_000_000


class Limits(Struct, frozen=True, kw_only=True):
    """Budgets; None means unlimited.

    Attributes:
        day_tokens: Tokens per day.
        day_nano_usd: Money per day.
        job_tokens: Tokens per job, all its attempts together.
        job_nano_usd: Money per job.
    """

    day_tokens: int | None = None
    day_nano_usd: int | None = None
    job_tokens: int | None = None
    job_nano_usd: int | None = None

    @property
    def any(self) -> bool:
        """Whether any budget is set."""
        return any(limit is not None for limit in (self.day_tokens, self.day_nano_usd)) or self.of_job

    @property
    def of_job(self) -> bool:
        """Whether a budget per job is set."""
        return self.job_tokens is not None or self.job_nano_usd is not None


class Spender(Struct, frozen=True, kw_only=True):
    """The attempt that spends; it asks one question at a time.

    Attributes:
        day: YYYY-MM-DD, UTC, of the claim, even if it is settled after midnight.
        job_id: Id of the job.
        attempt: Number of the attempt.
    """

    day: str
    job_id: str
    attempt: int


class Claimed(Struct, frozen=True, kw_only=True):
    """Reply of ``claim``.

    Attributes:
        outcome: ``ok``, ``spent`` (a budget is used up) or ``held`` (other jobs have reserved the rest).
        granted: Tokens that the answer may have.
        budget: The budget that prevents it: ``day_tokens``, ``day_usd``, ``job_tokens`` or ``job_usd``.
        used: How much of that budget is used.
        limit: That budget.
    """

    outcome: str
    granted: int = 0
    budget: str = ""
    used: int = 0
    limit: int = 0


class DayUse(Struct, frozen=True, kw_only=True):
    """What a day's answers cost; free ones are not counted."""

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
    """Reserve what an answer may cost.

    Args:
        scripts: The store functions.
        spender: The attempt that asks.
        limits: The budgets.
        question: Estimated length of the question, in tokens.
        answer: Wanted upper bound of the answer's length, in tokens.
        least: Tokens of the answer below which it is not worth asking.
        nano_in: Price of a token of the question, in 10^-9 dollars.
        nano_out: Price of a token of the answer, in 10^-9 dollars.
        hold_ms: Time after which the reservation counts as spent, unless it is settled.

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
    """Replace a reservation by what the answer cost.

    Returns:
        False if it was settled before.

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
    """Return the command that reads what the answers of a day cost, for use in a pipeline.

    Args:
        prefix: Prefix of all keys.
        day: YYYY-MM-DD, UTC.
    """
    return ("HMGET", f"{prefix}ask:use:{day}", "answers", "tokens", "nano_usd")


def read_day_use(reply: list[bytes | None]) -> DayUse:
    """Return the use from the reply to ``day_use_command``."""
    answers, tokens, nano_usd = (0 if value is None else int(value) for value in reply)
    return DayUse(answers=answers, tokens=tokens, nano_usd=nano_usd)
