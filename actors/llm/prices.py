"""Costs of answers: prices in 3ox.toml, then the price list of the extra ``llm`` (``genai-prices``)."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence

from ops.settings.load import LoadedSettings

_MILLION = 1_000_000
#: Prices may depend on the length of the prompt; this length is in the first tier of most models.
_TYPICAL_TOKENS = 1_000


def warm_prices() -> None:
    """Load the price list in a background thread; it takes 0.5 s."""
    threading.Thread(target=_price_list, name="prices", daemon=True).start()


def cost_usd(
    loaded: LoadedSettings, provider: str, models: Sequence[str], *, tokens_in: int, tokens_out: int
) -> float | None:
    """Return the cost of an answer in US dollars; None if the price is unknown.

    Args:
        loaded: Settings.
        provider: Name of the provider.
        models: Names of the model, as reported by the provider and as requested; the first with a price
            counts.
        tokens_in: Input tokens.
        tokens_out: Output tokens.
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
        # A gateway serves models of several vendors through one protocol; then the model's name decides.
        for vendor in (provider, None):
            try:
                return float(calc_price(usage, model_ref=model, provider_id=vendor).total_price)
            except LookupError:
                continue
    return None


def token_prices_usd(loaded: LoadedSettings, provider: str, model: str) -> tuple[float, float] | None:
    """Return the prices of an input and an output token in US dollars; None if unknown."""
    price_in = cost_usd(loaded, provider, [model], tokens_in=_TYPICAL_TOKENS, tokens_out=0)
    price_out = cost_usd(loaded, provider, [model], tokens_in=0, tokens_out=_TYPICAL_TOKENS)
    if price_in is None or price_out is None:
        return None
    return price_in / _TYPICAL_TOKENS, price_out / _TYPICAL_TOKENS


@functools.cache
def _price_list() -> bool:
    """Load the price list and return whether it is installed."""
    if importlib.util.find_spec("genai_prices") is None:
        return False
    from genai_prices import data_snapshot

    # The import takes half of the time, building the snapshot the other half.
    return bool(data_snapshot.get_snapshot().providers)
