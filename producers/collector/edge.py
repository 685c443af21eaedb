"""Around the application: preflights, CORS headers on every answer, a bound on requests at once, the last resort.

Contract: an allowed origin is echoed exactly, on errors too, else the page could not read the reason; unknown origins
get no CORS header; never ``*``. An error that nobody caught is a 500 without a word about the request, and is logged
with the kind of error and the place alone. Plain ASGI, because each layer of middleware costs as much as a handler.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from attributary.producers.collector import metrics
from attributary.producers.collector.access import refused
from attributary.producers.collector.answers import SECURITY_HEADERS, Refusal, problem, retry_after
from attributary.producers.collector.keys import KeyRing

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFLIGHT_SECONDS = 7_200
_ALLOWED_HEADERS = "authorization, content-type, content-encoding, idempotency-key, traceparent"
_EXPOSED_HEADERS = b"retry-after"
_CORS_PATHS = ("/track/event", "/track/conversion")

logger = logging.getLogger("attributary.collector")


class Edge:
    """The application that the server runs.

    Args:
        app: the routes.
        posts: applications of POST by path, asked before the routes.
        keys: says which origins are allowed.
        max_concurrency: most requests at once.
        endpoints: names of paths for metrics; every other path is counted as ``other``.
    """

    def __init__(
        self, app: App, posts: Mapping[str, App], keys: KeyRing, max_concurrency: int, endpoints: tuple[str, ...]
    ) -> None:
        self._app = app
        self._posts = posts
        self._keys = keys
        self._max_concurrency = max_concurrency
        self._endpoints = endpoints
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        endpoint = self._endpoint(scope["path"])
        cors = self._cors_headers(scope)
        status = 0

        async def send_with_cors(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if cors:
                    message["headers"] = [*message.get("headers", ()), *cors]
            await send(message)

        self._at_once += 1
        metrics.inflight.set(self._at_once)
        try:
            answer = self._answer_at_once(scope, is_allowed=len(cors) > 1)
            routes = self._posts.get(scope["path"], self._app) if scope["method"] == "POST" else self._app
            await (answer or routes)(scope, receive, send_with_cors)
        except Exception as error:  # noqa: BLE001  # the last resort: the client gets an answer, the process goes on
            # The kind of error and its place alone: its text may hold a value of the request.
            logger.error("a request failed: %s at %s", type(error).__name__, _place(error))  # noqa: TRY400
            if not status:
                await failed()(scope, receive, send_with_cors)
        finally:
            self._at_once -= 1
            metrics.inflight.set(self._at_once)
            metrics.requests.labels(endpoint, str(status)).inc()
            metrics.request_seconds.labels(endpoint).observe(time.perf_counter() - started)

    def _answer_at_once(self, scope: Scope, *, is_allowed: bool) -> Response | None:
        """Return the answer to a preflight, or to a request that cannot be served now."""
        if scope["method"] == "OPTIONS" and scope["path"].endswith(_CORS_PATHS):
            return _preflight(Request(scope), is_allowed=is_allowed)
        if self._at_once > self._max_concurrency:
            return problem(refused(503, "busy", "Too many requests at once.", retry_after()))
        return None

    def _cors_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if not scope["path"].endswith(_CORS_PATHS):
            return []
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        if origin is None:
            return [(b"vary", b"Origin")]
        if origin.decode("latin-1") not in self._keys.origins:
            return [(b"vary", b"Origin")]
        return [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
        ]

    def _endpoint(self, path: str) -> str:
        # A name with a slash at its end stands for everything below it.
        return next(
            (name for name in self._endpoints if path.endswith(name) or (name[-1] == "/" and name in path)), "other"
        )


def failed() -> Response:
    """Return the answer to a request that failed here."""
    return problem(Refusal(500, "The collector failed. Send the request again.", retry_after()))


def _preflight(request: Request, *, is_allowed: bool) -> Response:
    origin = request.headers.get("origin")
    if origin is None:
        return Response(status_code=204, headers={**SECURITY_HEADERS, "Allow": "POST, OPTIONS"})
    if not is_allowed:
        return problem(refused(403, "origin", "The origin is on no key's list."))
    return Response(
        status_code=204,
        headers={
            **SECURITY_HEADERS,
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        },
    )


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame: text of an error may hold a value, places never do."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
