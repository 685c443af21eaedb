"""An open-loop load generator for HTTP: requests leave at their own times, whatever the answers do.

A latency counts from the time at which a request should have left, so a server that stalls cannot hide it: a request
that finds every connection in use waits for the next, and its wait counts. Requests are built before; a connection has
one request on its way and stays open.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from attributary.local.ports import LOOPBACK

CONNECTIONS = 128
_TICK_SECONDS = 0.0005


@dataclass
class Outcome:
    """What one run measured."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """Return a quantile of the latencies, milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def send_at_rate(port: int, requests: Sequence[bytes], rate: float) -> Outcome:
    """Send requests at a steady rate; return what came back.

    Args:
        port: of this machine.
        requests: whole HTTP/1.1 requests.
        rate: requests a second.

    Raises:
        ConnectionError: the server closed a connection that waited for an answer.
    """
    factory = importlib.import_module("uvloop").new_event_loop if importlib.util.find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_Sender(requests, rate).run(port))


class _Sender:
    def __init__(self, requests: Sequence[bytes], rate: float) -> None:
        self.outcome = Outcome()
        self.idle: deque[_Connection] = deque()
        self._requests = requests
        self._rate = rate
        self._started = 0.0
        self._next = 0
        self._all_answered: asyncio.Future[None] | None = None

    async def run(self, port: int) -> Outcome:
        loop = asyncio.get_running_loop()
        self._all_answered = loop.create_future()
        for _ in range(min(CONNECTIONS, len(self._requests))):
            await loop.create_connection(lambda: _Connection(self), LOOPBACK, port)
        total = len(self._requests)
        self._started = time.perf_counter()
        while self._next < total and not self._all_answered.done():
            due = min(total, int((time.perf_counter() - self._started) * self._rate) + 1)
            while self._next < due and self.idle:
                self.idle.popleft().send(self._requests[self._next], self._started + self._next / self._rate)
                self._next += 1
            await asyncio.sleep(_TICK_SECONDS)
        await self._all_answered
        self.outcome.seconds = time.perf_counter() - self._started
        for connection in self.idle:
            connection.close()
        return self.outcome

    def answered(self, connection: _Connection, status: int, due: float) -> None:
        self.outcome.latencies.append(time.perf_counter() - due)
        self.outcome.statuses[status] += 1
        self.idle.append(connection)
        if len(self.outcome.latencies) == len(self._requests) and self._all_answered is not None:
            self._all_answered.set_result(None)

    def failed(self) -> None:
        if self._all_answered is not None and not self._all_answered.done():
            self._all_answered.set_exception(ConnectionError("the server closed a connection without an answer"))


class _Connection(asyncio.Protocol):
    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._got = b""
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._sender.idle.append(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        due, self._due, self._got = self._due, None, b""
        assert due is not None  # nothing comes unasked
        self._sender.answered(self, int(head[9:12]), due)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._due is not None:
            self._sender.failed()
        elif self in self._sender.idle:  # closed while idle
            self._sender.idle.remove(self)

    def close(self) -> None:
        self._transport.close()
