"""What an answer costs: prices of 3ox.toml, then those that the extra ``llm`` brings (``genai-prices``)."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence

from ops.settings.load import LoadedSettings

_MILLION = 1_000_000
#: A price list has a price for every length of question; this one is the first of most.
_USUAL_TOKENS = 1_000


def warm_prices() -> None:
    """Load the price list beside what this thread does; it takes 0.5 s, in which an answer is awaited."""
    threading.Thread(target=_price_list, name="prices", daemon=True).start()


def cost_usd(
    loaded: LoadedSettings, provider: str, models: Sequence[str], *, tokens_in: int, tokens_out: int
) -> float | None:
    """Give what an answer costs, in dollars; None if the price is not known.

    Args:
        loaded: Settings.
        provider: Name of the provider that answers.
        models: Names of the model: as the provider says, as it was asked for; the first with a price counts.
        tokens_in: Length of the question.
        tokens_out: Length of the answer.
    """
    prices = loaded.settings.ask.prices
    own = next((prices[model] for model in models if model in prices), None)
    if own is not None:
        return (tokens_in * own.input_usd + tokens_out * own.output_usd) / _MILLION
    if not _price_list():
        return None
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    for model in models:
        # A gateway passes models of several vendors through one protocol: then the model's name decides.
        for vendor in (provider, None):
            try:
                return float(calc_price(usage, model_ref=model, provider_id=vendor).total_price)
            except LookupError:
                continue
    return None


def token_prices_usd(loaded: LoadedSettings, provider: str, model: str) -> tuple[float, float] | None:
    """Give the prices of a token of question and of answer, in dollars; None if they are not known."""
    price_in = cost_usd(loaded, provider, [model], tokens_in=_USUAL_TOKENS, tokens_out=0)
    price_out = cost_usd(loaded, provider, [model], tokens_in=0, tokens_out=_USUAL_TOKENS)
    if price_in is None or price_out is None:
        return None
    return price_in / _USUAL_TOKENS, price_out / _USUAL_TOKENS


@functools.cache
def _price_list() -> bool:
    """Load the price list; False if it is not installed."""
    if importlib.util.find_spec("genai_prices") is None:
        return False
    from genai_prices import data_snapshot

    # Importing the data is half of the time, reading them the other half.
    return bool(data_snapshot.get_snapshot().providers)
