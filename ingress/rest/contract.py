"""What the routes share of their contract: their problems, how bodies are read, the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin

from ingress.core.http.problems import MEDIA_TYPE, ApiProblem, Problem
from ingress.rest.request_filter import HOOKS_PREFIX, OPEN_PATHS
from middleware.job.schema import explain

_MEANINGS = {
    204: "The job has ended and there is nothing more to tell; do not come back.",
    400: "The request is not valid.",
    401: "Nobody that is known asks.",
    403: "Whoever asks may not do this, or the policy denies the job.",
    404: "There is no such job.",
    405: "The route does not take this method.",
    408: "The body did not come.",
    409: "The request is well-formed, but does not fit what is there.",
    413: "The body is too large.",
    415: "The body has another type than the route takes.",
    421: "The bridge is not called by this name.",
    429: "There are too many requests or streams; come back later.",
    500: "The bridge made a mistake.",
    503: "The store is away, or the queue is full; come back later.",
}
#: Any route may answer with these.
_ALWAYS = (400, 401, 403, 405, 421, 429, 500, 503)
#: And any that reads a body, with these.
BODY = (408, 413, 415)


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Document the problems that a route answers with; those that all routes share come by themselves."""
    return {
        status: ResponseSpec(
            Problem, generate_examples=False, description=_MEANINGS[status], media_type=MEDIA_TYPE
        )
        for status in (*_ALWAYS, *statuses)
    }


class StrictRequest(Request[Any, Any, Any]):
    """Reads a JSON body straight into the struct that its route takes (``opt["body"]``).

    The framework's own way reads JSON loosely: it would take the text "5" for the number.
    """

    async def json(self) -> Any:
        """Give the body.

        Raises:
            ApiProblem: It is not declared as JSON.
            InvalidJob: It does not fit; names the field.
        """
        require_json(self)
        kind = self.route_handler.opt.get("body")
        body = await self.body()
        if kind is None:
            kind = Any
        try:
            return decoder_of(kind).decode(body)
        except msgspec.ValidationError as error:
            if "got `float`" not in str(error):
                raise explain(error, _tag_of(body)) from error
        except msgspec.MsgspecError as error:
            raise explain(error, _tag_of(body)) from error
        except UnicodeDecodeError as error:
            raise ApiProblem(400, "invalid-request", "the body is not UTF-8.", remedy="Encode it.") from error
        try:
            return msgspec.convert(_whole_numbers(msgspec.json.decode(body)), kind)
        except msgspec.ValidationError as error:
            raise explain(error, _tag_of(body)) from error


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """Give the decoder of a type, made once."""
    known = _decoders.get(kind)
    if known is None:
        known = _decoders[kind] = msgspec.json.Decoder(kind)
    return known


def require_json(request: Request[Any, Any, Any]) -> None:
    """Refuse a body that is not declared as JSON.

    Raises:
        ApiProblem: It is not.
    """
    kind = request.content_type[0].lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    raise ApiProblem(
        415,
        "media-type",
        f"the body is declared as {kind!r}.",
        remedy="Send 'Content-Type: application/json'.",
    )


class _Tag(msgspec.Struct):
    job_type: str = ""


def _tag_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Tag).job_type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


class Document(JsonRenderPlugin):
    """Serves the OpenAPI document: the framework's, with the exact schemas of our own types.

    The framework knows the fields of a struct, but not that it takes no others.

    Args:
        types: Whose schemas are put in.
        bodies: The body by operation id, where the framework does not know it.
        stream: Schema of one event of an event stream.
    """

    def __init__(self, types: list[Any], bodies: dict[str, Any], stream: dict[str, Any]) -> None:
        super().__init__()
        self._types = types
        self._bodies = bodies
        self._stream = stream
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Give the document; made once."""
        if self._rendered is None:
            self._rendered = self.render_json(request, self._completed(openapi_schema))
        return self._rendered

    def _completed(self, document: dict[str, Any]) -> dict[str, Any]:
        _, components = msgspec.json.schema_components(
            self._types, ref_template="#/components/schemas/{name}"
        )
        schemas = {**document["components"].get("schemas", {}), **components}
        paths = {
            path: {method: self._operation(path, item) for method, item in operations.items()}
            for path, operations in document["paths"].items()
        }
        return {**document, "paths": paths, "components": {**document["components"], "schemas": schemas}}

    def _operation(self, path: str, operation: Any) -> Any:
        if not isinstance(operation, dict):
            return operation
        changed = dict(operation)
        if path in OPEN_PATHS or path.startswith(HOOKS_PREFIX):
            changed["security"] = []
        changed["responses"] = {
            status: self._response(response) for status, response in operation["responses"].items()
        }
        changed["parameters"] = [_parameter(item) for item in operation.get("parameters", ())]
        body = self._bodies.get(str(changed.get("operationId")))
        if body is not None:
            changed["requestBody"] = body
        return changed

    def _response(self, response: dict[str, Any]) -> dict[str, Any]:
        if "text/event-stream" not in response.get("content", ()):
            return response
        return {**response, "content": {"text/event-stream": {"schema": self._stream}}}


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    """Say of a parameter that may be left out what it is when it is not.

    The framework also offers null, which no query and no header can carry, and loses a lower bound of 0.
    """
    schema = dict(parameter["schema"])
    kinds = [kind for kind in schema.pop("oneOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {**kinds[0], **schema}
    elif kinds:
        schema["oneOf"] = kinds
    if schema.get("type") == "number" and "maximum" in schema:
        schema.setdefault("minimum", 0)
    return {**parameter, "schema": schema}


def _whole_numbers(value: Any) -> Any:
    """Give 1 for 1.0, at every depth: JSON and its schemas make no difference between them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value
