"""The ASGI application of the private listener.

Every request goes the same way: key, parameters, body, handler, document. Whatever ends it early is a ``Refusal`` and
becomes problem+json; what is not expected becomes 500 without details, and the stack goes to the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from attributary.consumers.api.endpoints import API, Endpoint, endpoints, openapi, read_parameters
from attributary.consumers.api.handlers import Answer, Call, Handlers
from attributary.consumers.api.metrics import request_seconds, requests
from attributary.consumers.api.pool import StoreBusy
from attributary.consumers.reports.page_style import STYLE_HASH
from attributary.producers.collector.access import Access
from attributary.producers.collector.answers import SECURITY_HEADERS, Refusal, problem, retry_after

MAX_BODY = 64 << 10
# A browser asks its user for the key, and keeps it for this address until it is closed.
_LOGIN = {"WWW-Authenticate": 'Basic realm="attributary", charset="UTF-8"'}
_PAGE_POLICY = f"default-src 'none'; style-src '{STYLE_HASH}'; frame-ancestors 'none'"


def create_app(handlers: Handlers, access: Access, version: str) -> Starlette:
    """Return the application.

    Args:
        handlers: the endpoints' work.
        access: keys and their rates.
        version: of the project, for the OpenAPI document.
    """
    document = msgspec.json.encode(openapi(version))

    async def description(_request: Request) -> Response:
        return Response(document, 200, {"Content-Type": "application/json", **SECURITY_HEADERS})

    routes = [Route(API + each.path, _route(each, handlers, access), methods=[each.method]) for each in endpoints()]
    app = Starlette(routes=[Route(f"{API}/openapi.json", description, methods=["GET"]), *routes])
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(405, _not_allowed)
    app.add_exception_handler(Exception, _failed)  # Starlette raises it again, and the server logs the stack
    return app


def _route(endpoint: Endpoint, handlers: Handlers, access: Access) -> Callable[[Request], Awaitable[Response]]:
    handler = getattr(handlers, endpoint.name)

    async def respond(request: Request) -> Response:
        status = 500
        try:
            with request_seconds.labels(endpoint.name).time():
                response = await _answer(endpoint, handler, access, request)
            status = response.status_code
        finally:
            requests.labels(endpoint.name, str(status)).inc()
        return response

    return respond


async def _answer(
    endpoint: Endpoint, handler: Callable[[Call], Awaitable[Answer]], access: Access, request: Request
) -> Response:
    try:
        tenant_id = key_id = ""
        if endpoint.scope is not None:
            key = access.authorize(request, endpoint.scope, None)
            tenant_id, key_id = key.tenant, key.key_id
        values = read_parameters(
            endpoint, request.path_params, list(request.query_params.multi_items()), _headers(request)
        )
        body = None if endpoint.body is None else await _body(request, endpoint.body)
        answer = await handler(Call(tenant_id, key_id, values, body))
    except Refusal as refusal:
        if refusal.status == 401 and endpoint.is_page:
            refusal.headers = {**refusal.headers, **_LOGIN}
        return problem(refusal)
    except StoreBusy as error:
        return problem(Refusal(503, str(error), retry_after()))
    return _response(endpoint, answer, request)


def _headers(request: Request) -> dict[str, str]:
    found = request.headers.get("idempotency-key")
    return {} if found is None else {"Idempotency-Key": found}


async def _body(request: Request, kind: type) -> Any:
    """Return the decoded body.

    Raises:
        Refusal: it is too large, of another type, or breaks a rule.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The body must be application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "The body must not be compressed.")
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > MAX_BODY:
                raise Refusal(413, f"The body must not be larger than {MAX_BODY} bytes.")
    except ClientDisconnect:
        raise Refusal(400, "The body did not arrive as a whole.") from None
    try:
        return msgspec.json.decode(bytes(raw), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        names = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        if isinstance(error, msgspec.ValidationError) and "unknown field" not in str(error):
            raise Refusal(400, f"The body breaks a rule: {error}.") from None
        raise Refusal(400, f"The body must be a JSON object with the fields {names}.") from None


def _response(endpoint: Endpoint, answer: Answer, request: Request) -> Response:
    headers = {"Content-Type": "application/json", **SECURITY_HEADERS}
    if answer.location is not None:
        headers["Location"] = answer.location
    if answer.etag is not None:
        headers |= {"ETag": f'"{answer.etag}"', "Cache-Control": "private, no-cache"}
        named = {text.strip().removeprefix("W/") for text in request.headers.get("if-none-match", "").split(",")}
        if headers["ETag"] in named or "*" in named:
            return Response(b"", 304, {name: value for name, value in headers.items() if name != "Content-Type"})
    if endpoint.is_page:
        headers |= {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _PAGE_POLICY}
        return Response(answer.document.encode(errors="backslashreplace"), endpoint.status, headers)
    return Response(msgspec.json.encode(answer.document), endpoint.status, headers)


async def _not_found(_request: Request, _error: Exception) -> Response:
    return problem(Refusal(404, f"There is nothing at this path. {API}/openapi.json names all paths."))


async def _failed(_request: Request, _error: Exception) -> Response:
    return problem(Refusal(500, "The server made a mistake; its log has the details."))


async def _not_allowed(_request: Request, error: Exception) -> Response:
    return problem(Refusal(405, "The path does not take this method.", getattr(error, "headers", None)))
