"""What all routes share: documented problems, strict reading of bodies, the OpenAPI document."""

from __future__ import annotations

import codecs
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import Parameter

from ingress.core.http.problems import MEDIA_TYPE, ApiProblem, Problem
from ingress.rest.request_filter import HOOKS_PREFIX, OPEN_PATHS
from middleware.job.schema import JOB_TYPES, explain

JobPart = Annotated[str, Parameter(description="The job's id, or a unique prefix or suffix of it.")]
_MEANINGS = {
    204: "The job has finished and all events were sent; do not reconnect.",
    400: "The request is not valid.",
    401: "The credentials are missing or not valid.",
    403: "The token lacks the scope, or the policy denies the job.",
    404: "The job was not found.",
    405: "The route does not support this method.",
    408: "The body did not arrive in time.",
    409: "The request is valid but conflicts with the present state.",
    413: "The body is too large.",
    415: "The media type of the body is not supported.",
    421: "The host name is not allowed.",
    429: "Too many requests or open streams; retry later.",
    500: "Internal error.",
    503: "The store is unavailable, or the queue is full; retry later.",
}
#: Statuses of every route.
_ALWAYS = (400, 401, 403, 405, 421, 429, 500, 503)
#: Further statuses of every route that reads a body.
BODY = (408, 413, 415)


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the documentation of a route's problems; those of every route are included."""
    return {
        status: ResponseSpec(
            Problem, generate_examples=False, description=_MEANINGS[status], media_type=MEDIA_TYPE
        )
        for status in (*_ALWAYS, *statuses)
    }


class StrictRequest(Request[Any, Any, Any]):
    """Decodes a JSON body strictly into the struct of its route (``opt["body"]``).

    A body of a job type that is not built in is decoded into ``opt["actor_body"]``, if the route has that.

    The framework itself decodes leniently: it would accept the string "5" as a number.
    """

    async def json(self) -> Any:
        """Return the decoded body.

        Raises:
            ApiProblem: The body is not declared as JSON.
            InvalidJob: The body does not match the schema; names the field.
        """
        require_json(self)
        kind = self.route_handler.opt.get("body")
        body = (await self.body()).removeprefix(codecs.BOM_UTF8)
        if kind is None:
            kind = Any
        try:
            return decoder_of(kind).decode(body)
        except msgspec.ValidationError as error:
            actor_kind = self.route_handler.opt.get("actor_body")
            if actor_kind is not None and (tag := _tag_of(body)) and tag not in JOB_TYPES:
                return _decode_actor_body(body, actor_kind)
            if "got `float`" not in str(error):
                raise explain(error, _tag_of(body)) from error
        except msgspec.MsgspecError as error:
            raise explain(error, _tag_of(body)) from error
        except UnicodeDecodeError as error:
            raise ApiProblem(
                400, "invalid-request", "The body is not UTF-8.", remedy="Encode it as UTF-8."
            ) from error
        try:
            return msgspec.convert(_whole_numbers(msgspec.json.decode(body)), kind)
        except msgspec.ValidationError as error:
            raise explain(error, _tag_of(body)) from error


def _decode_actor_body(body: bytes, kind: Any) -> Any:
    try:
        return decoder_of(kind).decode(body)
    except msgspec.ValidationError:
        document = _whole_numbers(msgspec.json.decode(body))
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise explain(error) from error


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a type; it is created once."""
    known = _decoders.get(kind)
    if known is None:
        known = _decoders[kind] = msgspec.json.Decoder(kind)
    return known


def require_json(request: Request[Any, Any, Any]) -> None:
    """Check that the body is declared as JSON.

    Raises:
        ApiProblem: It is not.
    """
    kind = request.content_type[0].lower()
    if is_json(kind):
        return
    raise ApiProblem(
        415,
        "media-type",
        f"The body is declared as {kind!r}.",
        remedy="Send 'Content-Type: application/json'.",
    )


def is_json(media_type: str) -> bool:
    """Return whether a media type, in lower case and without parameters, is JSON."""
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


class _Tag(msgspec.Struct):
    job_type: str = ""


def _tag_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Tag).job_type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


class Document(JsonRenderPlugin):
    """The OpenAPI document: the framework's, with the exact schemas of our structs.

    The framework's schemas lack ``additionalProperties: false``.

    Args:
        types: Structs whose schemas are inserted.
        bodies: Request bodies by operation id that the framework does not know.
        stream: Schema of an event of an event stream.
    """

    def __init__(self, types: list[Any], bodies: dict[str, Any], stream: dict[str, Any]) -> None:
        super().__init__()
        self._types = types
        self._bodies = bodies
        self._stream = stream
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the document; it is rendered once."""
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
    """Correct the schema of an optional parameter.

    The framework adds null, which a query or header cannot carry, and loses a lower bound of 0.
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
    """Replace floats like 1.0 by integers at every depth: JSON Schema does not distinguish them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value
