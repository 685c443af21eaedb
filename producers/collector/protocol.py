"""One connection of the public listener: uvicorn's protocol with the limits that it does not have.

uvicorn waits for ever for headers and bodies (its issue 157), and httptools takes headers of any size. Here a request
has one deadline for its headers and one for its body, whatever trickles in; line and headers together have a limit in
bytes and in number; a connection beyond the limit is closed at once; an answer that nobody reads ends the connection,
and so do more pipelined requests than ``PIPELINED_MAX``.

Answers: 408 too slow, 431 headers too large, 400 for what is no HTTP (two lengths, no host, and the like).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from attributary.producers.collector import metrics
from attributary.producers.collector.config import CollectorConfig

RESPONSE_SECONDS = 60.0
"""So long a client may take to read an answer, the wait for the log included."""
PIPELINED_MAX = 64
"""So many requests of a connection may wait for the answer of the one before; with more it is closed."""
_CLOSE_SECONDS = 2.0
_STATUS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large", 400: b"Bad Request"}


class BoundedProtocol(HttpToolsProtocol):
    """The protocol; ``bounded`` makes a subclass with the limits of a collector."""

    limits = CollectorConfig()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None  # of the request that is being read
        self._answer_timer: asyncio.TimerHandle | None = None
        self._in_headers = True
        self._head_bytes = 0
        self._ended = 0  # requests that were read whole

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, with the deadline of the first request's headers."""
        super().connection_made(transport)
        metrics.connections.set(len(self.connections))
        if len(self.connections) > self.limits.max_connections:
            metrics.rejected.labels("busy").inc()
            transport.abort()
            return
        self._start_timer(self.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and leave no timer behind."""
        super().connection_lost(exc)
        metrics.connections.set(len(self.connections))
        self._stop_timers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the headers' bytes are counted before the parser holds them."""
        if self._in_headers and self._timer is None:  # the first bytes of a further request, or blank lines
            self._start_timer(self.limits.header_seconds)
        ended_before = self._ended
        super().data_received(data)
        if self._in_headers and not self.transport.is_closing():
            # After the end of a request the rest of these bytes is counted from the next ones on: one read at most.
            self._head_bytes += len(data) if self._ended == ended_before else 0
            if self._head_bytes > self.limits.header_bytes:
                self._refuse(431, "header")

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self._in_headers = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Judge the headers, then hand the request to the application."""
        self._in_headers = False
        if self.transport.is_closing():
            return
        if len(self.pipeline) >= PIPELINED_MAX:
            metrics.rejected.labels("busy").inc()
            self.transport.abort()
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.header_bytes or len(self.headers) > self.limits.headers_max:
            self._refuse(431, "header")
            return
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        twice = any(names.count(name) > 1 for name in (b"content-length", b"transfer-encoding", b"authorization"))
        both = b"content-length" in names and b"transfer-encoding" in names
        if both or twice or hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refuse(400, "header")
            return
        self._start_timer(self.limits.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the reading of a request; from now on its answer has a deadline."""
        self._in_headers = True
        self._head_bytes = 0
        self._ended += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport.is_closing():
            return
        self._start_answer_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
        has_next = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(_CLOSE_SECONDS, self._abort)
        elif has_next:
            self._start_answer_timer()
            if self.pipeline:  # uvicorn reads on after each answer, so that a flood would fill the memory
                self.flow.pause_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_CLOSE_SECONDS, self._abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        del msg
        self._refuse(400, "header")

    def _start_answer_timer(self) -> None:
        if self._answer_timer is None:
            self._answer_timer = self.loop.call_later(RESPONSE_SECONDS, self._abort)

    def _start_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._answer_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._answer_timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._refuse(408, "slow")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer and close; an application that waits for the body learns that the client is gone."""
        if self.transport.is_closing():
            return
        metrics.rejected.labels(reason).inc()
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            is_started = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
            if is_started:  # half an answer is on its way: nothing can be added
                self.transport.abort()
                return
        body = b'{"type":"about:blank","title":"%b","status":%d}' % (_STATUS[status], status)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n%b"
            % (status, _STATUS[status], len(body), body)
        )
        self.transport.close()
        self.loop.call_later(_CLOSE_SECONDS, self._abort)

    def _abort(self) -> None:
        self._answer_timer = None
        self.transport.abort()


def bounded(config: CollectorConfig) -> type[BoundedProtocol]:
    """Return the protocol with a collector's limits."""
    return type("CollectorProtocol", (BoundedProtocol,), {"limits": config})
