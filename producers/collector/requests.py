"""A request of the collector: Starlette's, with headers that are found by name at once.

Starlette walks all headers for each that is asked for, and raises an error inside for each that is missing; a request
is asked for ten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from attributary.producers.collector.answers import Refusal, problem

Handler = Callable[[Request], Awaitable[Response]]


class IndexedHeaders(Headers):
    """Headers of a request; of several of one name ``get`` returns the first, as Starlette's do."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        # From the last to the first, so that the first stays.
        self._first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(raw)}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the first value of a header.

        Args:
            key: its name, in any case.
            default: returned when the header is missing.
        """
        return self._first.get(key.lower(), default)

    def getlist(self, key: str) -> list[str]:
        """Return all values of a header."""
        return super().getlist(key) if key.lower() in self._first else []


class CollectorRequest(Request):
    """A request with indexed headers."""

    @property
    def headers(self) -> Headers:
        """Return the headers."""
        if not hasattr(self, "_headers"):
            self._headers = IndexedHeaders(self.scope["headers"])
        return self._headers


def direct(handler: Handler) -> ASGIApp:
    """Return a handler as an application, without Starlette's router and its layers: half of a request's overhead."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await handler(CollectorRequest(scope, receive))
        except Refusal as refusal:
            response = problem(refusal)
        await response(scope, receive, send)

    return app
