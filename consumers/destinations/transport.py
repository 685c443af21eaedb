"""The world outside: HTTP and time, both replaceable in tests.

Contract: `send` gives a `HttpResponse`, with status 0 and the name of the fault when nothing came back; `perhaps_sent`
tells a connection that was never made from one that broke after the request had left. Invariant: neither URLs nor
bodies are logged (httpx's own log lines carry URLs with secrets and are switched off here).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol, Self

import httpx

from attributary.consumers.destinations.destination import HttpResponse

if TYPE_CHECKING:
    from types import TracebackType

    from attributary.consumers.destinations.destination import HttpRequest

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)
_MAX_ANSWER_BYTES = 65_536  # bytes kept of an answer; Meta's are a few hundred
# Idle connections are closed by us before servers do it: a request on a connection that the server has just closed
# is an ambiguous outcome.
_IDLE_SECONDS = 4.0


class Clock(Protocol):
    """Where the forwarder takes time from."""

    def now_micros(self) -> int:
        """Give the time of day: microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Give seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_micros(self) -> int:
        """Give the time of day."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Give seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Transport(Protocol):
    """Sends a request and gives what came back."""

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send; never raises for what the network or the destination does."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class HttpTransport:
    """HTTP/1.1 with keep-alive.

    Args:
        connections: most connections at once.
        connect_seconds: time to connect.
        answer_seconds: time to wait for an answer; Meta advises 1.5 s for a browser's sake, a batch may take longer.
    """

    def __init__(self, *, connections: int = 8, connect_seconds: float = 5.0, answer_seconds: float = 10.0) -> None:
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.Client(
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_SECONDS
            ),
            timeout=httpx.Timeout(answer_seconds, connect=connect_seconds),
            follow_redirects=False,
        )

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send; never raises for what the network or the destination does."""
        headers = {"content-type": "application/json", **request.headers}
        try:
            answer = self._client.post(request.url, content=request.body, headers=headers)
        except _NOT_SENT as error:
            return HttpResponse(0, fault=type(error).__name__)
        except httpx.TransportError as error:
            return HttpResponse(0, fault=type(error).__name__, perhaps_sent=True)
        return HttpResponse(answer.status_code, answer.content[:_MAX_ANSWER_BYTES], dict(answer.headers))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
