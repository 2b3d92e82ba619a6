"""The budgets of ``[ask.budget]``, enforced across all workers of a bridge.

    budget = JobBudget(loaded)
    reservation = budget.reserve(provider, request)     # before the provider is asked
    ...
    budget.settle(reservation, usage, text)             # replaces the reservation by the actual usage

Without a budget, the usage of the day is counted too; ``3ox status`` shows it.
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

#: A token of English text has about four bytes; three leave a margin for other languages.
_BYTES_PER_TOKEN = 3
#: Tokens that the protocols add to each message.
_TOKENS_PER_MESSAGE = 8
#: Minimum length of an answer that is worth asking for, unless a shorter one was requested.
_ANSWER_MIN_TOKENS = 16
#: Wait while other jobs have reserved the rest of the budget: they finish within seconds.
_RESERVED_WAIT_S = 2.0
#: Time that a reservation remains valid after the timeout of its job.
_RESERVATION_GRACE_MS = 60_000

log = get_logger(__name__)


class BudgetSpent(JobRefused):
    """The budget for answers is spent.

    Raise the limits in ``[ask.budget]``, or wait for the next day (UTC).

    Attributes:
        answer: The cut answer (``actors.llm.fallback.Answer``); None if no provider was asked.
        result: Result of the failed job.
    """

    answer: Any = None
    result: Any = None


class Reservation(Struct, frozen=True, kw_only=True):
    """The part of the budget reserved for one answer.

    Attributes:
        request: The request, its ``max_tokens`` limited to the reservation.
        spender: Attempt that is charged; None if nothing is counted.
        provider: Name of the provider.
        model: Name of the model.
        granted: Maximum length of the answer in tokens; None without a budget.
        cut: Whether that is less than was requested.
    """

    request: AskRequest
    spender: Spender | None
    provider: str
    model: str
    granted: int | None = None
    cut: bool = False


class JobBudget:
    """The budgets as they apply to the current job.

    Args:
        loaded: Settings.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._context = current_job()
        self._storeless = self._context.worker_id == IN_PROCESS
        self._limits = _limits(loaded)

    def reserve(self, provider: Provider, request: AskRequest) -> Reservation:
        """Reserve the maximum usage of an answer.

        Args:
            provider: The provider to be asked.
            request: The request.

        Raises:
            BudgetSpent: The rest of the budget does not cover it.
            JobRefused: There is a budget in US dollars, and the price of the model is unknown.
            JobParked: It would fit, but other jobs have reserved the rest.
            JobFailed: There is a budget, and the store is unavailable; worth a retry.
        """
        model = provider.model if request.model is None else request.model
        uncounted = Reservation(request=request, spender=None, provider=provider.name, model=model)
        if provider.free or (self._storeless and not self._limits.any):
            return uncounted
        own = provider.answer_max_tokens
        default = self._loaded.settings.ask.answer_max_tokens if own is None else own
        wanted = default if request.max_tokens is None else request.max_tokens
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
                least=min(wanted, _ANSWER_MIN_TOKENS),
                nano_in=prices[0],
                nano_out=prices[1],
                hold_ms=self._reservation_ms(),
            )

        claimed = self._with_store(ask_store)
        if claimed is None:
            return uncounted
        if claimed.outcome == "held":
            raise JobParked(
                f"Other jobs have reserved the rest of the budget {claimed.budget}.",
                after_s=_RESERVED_WAIT_S,
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

    def settle(self, reservation: Reservation, usage: Usage | None, text: str) -> float | None:
        """Charge the actual usage of an answer, and return its cost in US dollars; None if unknown.

        Args:
            reservation: From ``reserve``.
            usage: Usage reported by the provider; None if the answer was not completed.
            text: The answer so far; its length is charged where the provider reports none.
        """
        asked = usage is not None or text != ""
        model = reservation.model if usage is None else usage.model
        tokens_in = None if usage is None else usage.tokens_in
        tokens_out = None if usage is None else usage.tokens_out
        known = tokens_in is not None and tokens_out is not None
        if tokens_in is None:
            tokens_in = count_tokens(reservation.request) if asked else 0
        if tokens_out is None:
            tokens_out = _tokens_of(text)
        cost: float | None = None
        if asked:
            models = [model, reservation.model]
            cost = cost_usd(
                self._loaded, reservation.provider, models, tokens_in=tokens_in, tokens_out=tokens_out
            )
        if reservation.spender is not None:
            self._count(reservation.spender, tokens_in + tokens_out, cost)
        return cost if known else None

    def cut_off(self, reservation: Reservation) -> BudgetSpent:
        """Return the error for an answer that was cut off at the limit of the budget."""
        return BudgetSpent(
            f"The answer was cut off: the budget allows {reservation.granted} tokens.",
            remedy=_remedy("[ask.budget]"),
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
            # The reservation remains, and counts as spent when it expires.
            log.warning("ask.not_counted", job_id=spender.job_id, reason=str(error))

    def _prices(self, provider: str, model: str) -> tuple[int, int]:
        """Return the prices of an input and an output token, in 10^-9 US dollars."""
        if self._limits.day_nano_usd is None and self._limits.job_nano_usd is None:
            return 0, 0
        prices = token_prices_usd(self._loaded, provider, model)
        if prices is None:
            raise JobRefused(
                f"There is a budget in US dollars, but the price of the model {model!r} is unknown.",
                remedy=f'Add [ask.prices."{model}"] with input_usd and output_usd to 3ox.toml,'
                " or install the price list: pip install 'cmd-bridge[llm]'.",
            )
        return _nano(prices[0]), _nano(prices[1])

    def _reservation_ms(self) -> int:
        asked_s = self._context.job.timeout_seconds
        kind = JOB_TYPES.limits(self._context.job.job_type, self._loaded.settings)
        return int((kind.timeout_s if asked_s is None else asked_s) * 1000) + _RESERVATION_GRACE_MS

    def _with_store(self, ask: Callable[[], Claimed]) -> Claimed | None:
        """Return the store's answer; None if it is unavailable and no budget has to be enforced."""
        try:
            return ask()
        except StoreUnreachable as error:
            if self._limits.any:
                raise JobFailed(
                    f"The budget of [ask.budget] cannot be checked: {error.message}", remedy=error.remedy
                ) from error
            log.warning("ask.not_counted", job_id=self._context.job_id, reason=str(error))
            return None


def count_tokens(request: AskRequest) -> int:
    """Return an estimate of the tokens of a request, on the high side."""
    texts = [item.content for item in request.messages]
    if request.system is not None:
        texts.append(request.system)
    if request.schema is not None:
        texts.append(str(request.schema))
    return sum(_tokens_of(text) + _TOKENS_PER_MESSAGE for text in texts)


def _tokens_of(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN)


def _nano(usd: float) -> int:
    """Return an amount in billionths of a US dollar, rounded up after removing floating-point errors."""
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
    return f"The budget of the {whose} does not cover this request: {used} of {limit} are spent."


def _remedy(budget: str) -> str:
    if budget.startswith("day"):
        return f"Retry after midnight UTC, or raise {budget} in [ask.budget] of 3ox.toml."
    where = f"{budget} in [ask.budget]" if budget.startswith("job") else budget
    return f"Lower max_tokens, shorten the prompt, or raise {where} of 3ox.toml."
