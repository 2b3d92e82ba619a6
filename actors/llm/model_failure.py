"""Which of our errors an error of the model library is: transient, or a fault of the request or settings.

Imported with the library; see ``model_library.py``.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
    UserError,
)

from actors.llm.model_server import ModelServer
from actors.llm.provider import ProviderUnavailable
from actors.llm.reset_time import reset_after_s
from ops.errors import BridgeError, JobRefused
from ops.http.environment import http_environment
from ops.logs import get_logger

_ERROR_MAX_CHARS = 300
#: Request timeout and too many requests: transient, like every 5xx.
_TRANSIENT = frozenset({408, 429})
_KEY_LIKE = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_*-]{4,}")
_CHECK_SERVER = "Check that the server runs and that the base URL is correct."

log = get_logger(__name__)


def failure_of(error: Exception, server: ModelServer) -> BridgeError:
    """Return our error for one of the library.

    Args:
        error: What the library raised.
        server: The server that was asked.

    Returns:
        ``ProviderUnavailable`` if another attempt or provider may answer, else ``JobRefused``.
    """
    match error:
        case BridgeError():
            found: BridgeError = error
        case ModelHTTPError():
            found = _of_status(error, server)
        case ModelConnectionError():
            found = _of_connection(error, server)
        case ModelAPIError():
            found = ProviderUnavailable(f"The server failed: {error_text(error.message, server.key)}")
        case UnexpectedModelBehavior():
            found = ProviderUnavailable(f"{server.address} gave an empty answer.")
        case UserError():
            text = error_text(error.message, server.key)
            found = JobRefused(text, remedy="Correct the model (--model, or [ask] in 3ox.toml).")
        case _:
            log.warning("ask.answer_not_understood", server=server.address, exc_info=error)
            text = error_text(f"{type(error).__name__}: {error}", server.key)
            found = ProviderUnavailable(
                f"The answer of {server.address} is not in the format of its protocol: {text}",
                remedy="Check that the base URL belongs to a server of this protocol.",
            )
    return found


def error_text(detail: object, key: str) -> str:
    """Return a server's error message in one line of limited length, with keys masked.

    Args:
        detail: The message, or the document that has it.
        key: API key.
    """
    while isinstance(detail, dict):
        lowered = {str(name).lower(): value for name, value in detail.items()}
        detail = next((lowered[name] for name in ("error", "message", "detail") if lowered.get(name)), None)
    text = " ".join(str(detail).split()) if detail is not None else "no reason given"
    if key != "":
        text = text.replace(key, "***")
    text = _KEY_LIKE.sub(r"\1-***", text)[:_ERROR_MAX_CHARS]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _of_status(error: ModelHTTPError, server: ModelServer) -> BridgeError:
    status, text = error.status_code, error_text(error.body, server.key)
    headers = {} if error.headers is None else error.headers
    wait_s = reset_after_s(headers)
    wait_s = error.retry_after if wait_s is None else wait_s
    asked = "" if wait_s is None else f" It asks to retry in {round(wait_s, 1):g} s."
    if error.in_stream:
        return ProviderUnavailable(
            f"The server failed in the middle of its answer: {text}{asked}", retry_after_s=wait_s
        )
    message = f"{server.address} answered {status}: {text}"
    if status in _TRANSIENT or status >= 500 or isinstance(error, ModelQuotaExceededError):  # noqa: PLR2004
        return ProviderUnavailable(f"{message}{asked}", retry_after_s=wait_s)
    remedies = {
        401: f"Set the API key that belongs to this base URL, for example in {server.key_variable}.",
        403: "Use a key with access to this model.",
        404: "Check the model (--model) and the base URL.",
    }
    return JobRefused(message, remedy=remedies.get(status, "Correct the prompt or the model."))


def _of_connection(error: ModelConnectionError, server: ModelServer) -> BridgeError:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return JobRefused(
                f"The certificate of {server.address} is not valid: {cause.verify_message}.",
                remedy="Check the base URL, or set SSL_CERT_FILE to the authority that signed it.",
            )
    doing = "connecting" if error.phase in ("connect", "pool") else "waiting for its answer"
    if isinstance(error, ModelTimeoutError):
        problem = f"timed out {doing}"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        problem = "refused the connection"
    elif (
        unresolved := next((item for item in causes if isinstance(item, socket.gaierror)), None)
    ) is not None:
        problem = f"cannot be resolved ({unresolved.strerror})"
    else:
        # Not what the libraries have caught within: an IndexError of their queues explains nothing.
        errors = [cause for cause in causes if isinstance(cause, OSError | httpx2.TransportError)]
        reason = next((str(cause) for cause in reversed(errors) if str(cause)), error.message)
        problem = f"lost the connection {doing} ({error_text(reason, server.key).rstrip('.')})"
    proxy = server.proxy(http_environment())
    through = "" if proxy is None else f" through the proxy {proxy.place} ({proxy.variable})"
    return ProviderUnavailable(f"{server.address}{through} {problem}.", remedy=_CHECK_SERVER)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, members of groups included."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting.append(cause.__context__ if cause.__cause__ is None else cause.__cause__)
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
