"""What answers may take: the budgets of ``[ask.budget]``, kept across all workers of a bridge.

    budget = JobBudget(loaded)
    claim = budget.claim(provider, request)      # held back before the provider is asked
    ...
    budget.settle(claim, usage, text)            # replaced by what the answer took

Without a budget the day's use is counted all the same, and shown by ``3ox status``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from actors.context import bridge_scripts, current_job
from actors.llm.prices import cost_usd, token_prices_usd
from actors.llm.provider import AskRequest, Provider, Usage
from middleware.broker.spending import NANO_PER_USD, Claimed, Limits, Spender, claim, settle
from middleware.context import IN_PROCESS
from middleware.job.records import utc_now
from middleware.job.types import JOB_TYPES
from ops.errors import JobFailed, JobParked, JobRefused, StoreUnreachable
from ops.logs import get_logger
from ops.settings.load import LoadedSettings

#: A token of English text has about four bytes; three leave some room for other languages.
_BYTES_PER_TOKEN = 3
#: What the protocols put around each message.
_TOKENS_PER_MESSAGE = 8
#: An answer shorter than this is no use, unless it was asked for.
_LEAST_TOKENS = 16
#: Other jobs hold the rest of the budget: their answers are there after a few seconds.
_HELD_WAIT_S = 2.0
#: A hold outlives the time limit of its job by so much.
_HOLD_GRACE_MS = 60_000

log = get_logger(__name__)


class BudgetSpent(JobRefused):
    """The budget for answers is used up.

    Attributes:
        answer: What there is of the answer (``actors.llm.fallback.Answer``); None if nobody was asked.
        result: Kept with the failed job.
    """

    answer: Any = None
    result: Any = None


class Reservation(Struct, frozen=True, kw_only=True):
    """What one answer may take.

    Attributes:
        request: The question as it may be asked.
        spender: Who asks; None if nothing is counted.
        provider: Whom.
        model: Which model.
        granted: Tokens that the answer may have; None without a budget.
        cut: The budget grants less than what was wanted.
    """

    request: AskRequest
    spender: Spender | None
    provider: str
    model: str
    granted: int | None = None
    cut: bool = False


class JobBudget:
    """The budgets, as the current job sees them.

    Args:
        loaded: Settings.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._context = current_job()
        self._storeless = self._context.worker_id == IN_PROCESS
        self._limits = _limits(loaded)

    def claim(self, provider: Provider, request: AskRequest) -> Reservation:
        """Hold back what an answer may take at most.

        Args:
            provider: Who is to be asked.
            request: The question.

        Raises:
            BudgetSpent: It does not fit into what is left.
            JobRefused: There is a budget in money, and the model's price is not known.
            JobParked: It would fit if other jobs did not hold the rest just now.
            JobFailed: There is a budget, and the store that counts is away; worth another attempt.
        """
        model = provider.model if request.model is None else request.model
        free = Reservation(request=request, spender=None, provider=provider.name, model=model)
        if provider.free or (self._storeless and not self._limits.any):
            return free
        own = provider.answer_max_tokens
        usual = self._loaded.settings.ask.answer_max_tokens if own is None else own
        wanted = usual if request.max_tokens is None else request.max_tokens
        prices = self._prices(provider.name, model)
        spender = Spender(
            day=utc_now()[:10], job_id=self._context.job_id, attempt=max(1, self._context.attempt)
        )

        def ask_store() -> Claimed:
            return claim(
                bridge_scripts(self._loaded),
                spender,
                self._limits,
                question=count_tokens(request),
                answer=wanted,
                least=min(wanted, _LEAST_TOKENS),
                nano_in=prices[0],
                nano_out=prices[1],
                hold_ms=self._hold_ms(),
            )

        claimed = self._with_store(ask_store)
        if claimed is None:
            return free
        if claimed.outcome == "held":
            raise JobParked(
                f"other jobs hold what is left of the budget {claimed.budget} for their answers.",
                after_s=_HELD_WAIT_S,
                limit_s=self._loaded.settings.ask.park_max_s,
            )
        if claimed.outcome == "spent":
            raise BudgetSpent(_spent(claimed), remedy=_remedy(claimed.budget))
        if not self._limits.any:
            return Reservation(request=request, spender=spender, provider=provider.name, model=model)
        return Reservation(
            request=_bounded(request, claimed.granted),
            spender=spender,
            provider=provider.name,
            model=model,
            granted=claimed.granted,
            cut=claimed.granted < wanted,
        )

    def settle(self, claim: Reservation, usage: Usage | None, text: str) -> float | None:
        """Count what an answer took; gives its price in dollars, None if that is not known.

        Args:
            claim: From ``claim``.
            usage: What the provider says; None if it did not come to its end.
            text: The answer, or what came of it: measured where the provider says nothing.
        """
        asked = usage is not None or text != ""
        model = claim.model if usage is None else usage.model
        tokens_in = None if usage is None else usage.tokens_in
        tokens_out = None if usage is None else usage.tokens_out
        known = tokens_in is not None and tokens_out is not None
        if tokens_in is None:
            tokens_in = count_tokens(claim.request) if asked else 0
        if tokens_out is None:
            tokens_out = _tokens_of(text)
        cost: float | None = None
        if asked:
            cost = self._cost(claim, model, tokens_in, tokens_out)
        if claim.spender is not None:
            self._count(claim.spender, tokens_in + tokens_out, cost)
        return cost if known else None

    def refusal(self, claim: Reservation) -> BudgetSpent:
        """Make the error for an answer that was cut off where the budget ends."""
        return BudgetSpent(
            f"the answer is cut off: the budget leaves it {claim.granted} tokens.",
            remedy=_remedy("[ask.budget]"),
        )

    def _cost(self, claim: Reservation, model: str, tokens_in: int, tokens_out: int) -> float | None:
        return cost_usd(
            self._loaded, claim.provider, [model, claim.model], tokens_in=tokens_in, tokens_out=tokens_out
        )

    def _count(self, spender: Spender, tokens: int, cost: float | None) -> None:
        try:
            settle(
                bridge_scripts(self._loaded),
                spender,
                tokens=tokens,
                nano_usd=0 if cost is None else _nano(cost),
                count_job=self._limits.of_job,
            )
        except StoreUnreachable as error:
            # The hold stands, and counts as spent when its time is over.
            log.warning("ask.not_counted", job_id=spender.job_id, reason=str(error))

    def _prices(self, provider: str, model: str) -> tuple[int, int]:
        """Give the prices of a token of question and of answer, in 10^-9 dollars."""
        if self._limits.day_nano_usd is None and self._limits.job_nano_usd is None:
            return 0, 0
        prices = token_prices_usd(self._loaded, provider, model)
        if prices is None:
            raise JobRefused(
                f"there is a budget in dollars, and the price of the model {model!r} is not known.",
                remedy=f'Add [ask.prices."{model}"] with input_usd and output_usd to 3ox.toml,'
                " or install the price list: pip install 'cmd-bridge[llm]'.",
            )
        return _nano(prices[0]), _nano(prices[1])

    def _hold_ms(self) -> int:
        asked_s = self._context.job.timeout_seconds
        kind = JOB_TYPES.limits(self._context.job.job_type, self._loaded.settings)
        return int((kind.timeout_s if asked_s is None else asked_s) * 1000) + _HOLD_GRACE_MS

    def _with_store(self, ask: Callable[[], Claimed]) -> Claimed | None:
        """Ask the store; None if it is away and there is no budget to be kept."""
        try:
            return ask()
        except StoreUnreachable as error:
            if self._limits.any:
                raise JobFailed(
                    f"the budget of [ask.budget] cannot be kept: {error.message}", remedy=error.remedy
                ) from error
            log.warning("ask.not_counted", job_id=self._context.job_id, reason=str(error))
            return None


def count_tokens(request: AskRequest) -> int:
    """Estimate how many tokens a question has, rather too many than too few."""
    texts = [item.content for item in request.messages]
    if request.system is not None:
        texts.append(request.system)
    if request.schema is not None:
        texts.append(str(request.schema))
    return sum(_tokens_of(text) + _TOKENS_PER_MESSAGE for text in texts)


def _tokens_of(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN)


def _nano(usd: float) -> int:
    """Give an amount in billionths of a dollar, rounded up; what binary fractions add is no amount."""
    return math.ceil(round(usd * NANO_PER_USD, 3))


def _bounded(request: AskRequest, max_tokens: int) -> AskRequest:
    return msgspec.structs.replace(request, max_tokens=max_tokens)


def _limits(loaded: LoadedSettings) -> Limits:
    budget = loaded.settings.ask.budget
    return Limits(
        day_tokens=budget.day_tokens,
        day_nano_usd=None if budget.day_usd is None else _nano(budget.day_usd),
        job_tokens=budget.job_tokens,
        job_nano_usd=None if budget.job_usd is None else _nano(budget.job_usd),
    )


def _spent(claimed: Claimed) -> str:
    whose = "day" if claimed.budget.startswith("day") else "job"
    if claimed.budget.endswith("usd"):
        used, limit = f"${claimed.used / NANO_PER_USD:.6f}", f"${claimed.limit / NANO_PER_USD:g}"
    else:
        used, limit = f"{claimed.used}", f"{claimed.limit} tokens"
    return f"the budget of the {whose} does not cover this question: {used} of {limit} are used."


def _remedy(budget: str) -> str:
    if budget.startswith("day"):
        return f"Ask again after midnight UTC, or raise {budget} in [ask.budget] of 3ox.toml."
    where = f"{budget} in [ask.budget]" if budget.startswith("job") else budget
    return f"Ask for less (max_tokens, a shorter question), or raise {where} of 3ox.toml."
