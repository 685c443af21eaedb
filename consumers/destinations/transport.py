"""The world outside: HTTP and time, both replaceable in tests.

Contract: `send` gives a `HttpResponse` and never raises for what the network, the destination or a malformed request
does. Status 0 with the name of the fault: nothing came back; `perhaps_sent` tells a connection that was never made from
one that broke after the request had left. A status without `is_complete`: the body broke, was too long or did not end.

Invariants:

- a request takes at most the seconds that it was given, and an answer at most 64 KiB of memory, whatever the other side
  sends: a byte a second, headers without end, a compressed bomb;
- nothing is taken from the environment: no proxy, no netrc; only SSL_CERT_FILE and SSL_CERT_DIR name other authorities;
- neither URLs nor bodies are logged.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import zlib
from collections import deque
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import httpcore
import httpx

from attributary.consumers.destinations.destination import HttpResponse

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from attributary.consumers.destinations.destination import HttpRequest

_NOT_SENT = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.LocalProtocolError,
)
_MAX_ANSWER_BYTES = 65_536  # bytes kept of an answer; Meta's are a few hundred
_PIECE_BYTES = 16_384  # written at once, so that a slow reader meets the time limit
_GZIP_OR_ZLIB = 47  # zlib's window bits: look at the header
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
    """HTTP/1.1 with keep-alive; redirects are answers, never followed.

    Args:
        connections: most connections at once.
        connect_seconds: time to connect.
        answer_seconds: time for a whole request and its answer; Meta advises 1.5 s for a browser's sake, a batch may
            take longer.
        proxy: URL of an HTTP proxy, with user and password if it wants them; None: straight to the destination.
    """

    def __init__(
        self,
        *,
        connections: int = 8,
        connect_seconds: float = 5.0,
        answer_seconds: float = 10.0,
        proxy: str | None = None,
    ) -> None:
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._answer_seconds = answer_seconds
        self._network = _TimedNetwork()
        seconds = {"connect": connect_seconds, "pool": answer_seconds, "read": answer_seconds, "write": answer_seconds}
        self._extensions = {"timeout": seconds}
        shared: dict[str, Any] = {
            "ssl_context": httpx.create_ssl_context(),
            "keepalive_expiry": _IDLE_SECONDS,
            "network_backend": self._network,
        }
        self._connections = _Connections(connections, answer_seconds, shared)
        limits: dict[str, Any] = {"max_connections": connections, "max_keepalive_connections": connections}
        self._proxy = httpcore.HTTPProxy(**_proxy_of(proxy), **shared, **limits) if proxy else None

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send; never raises for what the network, the destination or a malformed request does."""
        self._network.deadline = time.monotonic() + self._answer_seconds
        status, headers = 0, dict[str, str]()
        body = bytearray()
        try:
            url, fields = _prepared(request)
            call = httpcore.Request(
                request.method, url, headers=fields, content=request.body, extensions=dict(self._extensions)
            )
        except (ValueError, TypeError, httpx.InvalidURL) as error:
            return HttpResponse(0, fault=type(error).__name__)
        try:
            with self._answered(call) as answer:
                status = answer.status
                headers = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in answer.headers}
                for piece in answer.iter_stream():
                    body += piece[: _MAX_ANSWER_BYTES + 1 - len(body)]
                    if len(body) > _MAX_ANSWER_BYTES:
                        break
        except _NOT_SENT as error:
            if not status:
                return HttpResponse(0, fault=type(error).__name__)
            return self._answer(status, headers, bytes(body), is_whole=False)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            if not status:
                return HttpResponse(0, fault=type(error).__name__, perhaps_sent=True)
            return self._answer(status, headers, bytes(body), is_whole=False)
        return self._answer(status, headers, bytes(body), is_whole=len(body) <= _MAX_ANSWER_BYTES)

    @contextmanager
    def _answered(self, call: httpcore.Request) -> Iterator[httpcore.Response]:
        """Send a request; give the answer while its body is read."""
        if self._proxy is not None:
            answer = self._proxy.handle_request(call)
            with closing(answer):
                yield answer
            return
        with self._connections.taken(call.url.origin) as connection:
            answer = connection.handle_request(call)
            with closing(answer):
                yield answer

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, is_whole: bool) -> HttpResponse:
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in {"", "identity"}:  # we ask for none; some proxies compress all the same
            body, is_decoded = _decompressed(body) if coding in {"gzip", "x-gzip", "deflate"} else (b"", False)
            is_whole = is_whole and is_decoded
        return HttpResponse(status, body[:_MAX_ANSWER_BYTES], headers, is_complete=is_whole)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()
        if self._proxy is not None:
            self._proxy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Connections:
    """Connections that are kept, by where they lead; the one that was used last goes first.

    httpcore's own pool looks at each of its connections twice a request: with 32 of them and as many threads that is
    three quarters of the processor time of a small request.

    Args:
        number: most connections at once.
        wait_seconds: how long a thread waits for one.
        options: of each connection.
    """

    def __init__(self, number: int, wait_seconds: float, options: Mapping[str, Any]) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._wait_seconds = wait_seconds
        self._options = dict(options)
        self._idle: dict[tuple[bytes, bytes, int], deque[httpcore.HTTPConnection]] = {}

    @contextmanager
    def taken(self, origin: httpcore.Origin) -> Iterator[httpcore.HTTPConnection]:
        """Give a connection that nobody else uses meanwhile."""
        if not self._free.acquire(timeout=self._wait_seconds):
            raise httpcore.PoolTimeout
        try:
            idle = self._idle.setdefault((origin.scheme, origin.host, origin.port), deque())
            connection = self._kept(idle) or httpcore.HTTPConnection(origin, **self._options)
            try:
                yield connection
            finally:
                if connection.is_idle() and not connection.is_closed():
                    idle.append(connection)
                else:
                    connection.close()
        finally:
            self._free.release()

    @staticmethod
    def _kept(idle: deque[httpcore.HTTPConnection]) -> httpcore.HTTPConnection | None:
        """Return the connection that was used last, None without one that is good; close what is too old."""
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if not connection.has_expired():
                return connection
            connection.close()

    def close(self) -> None:
        """Close those that are idle; one in use is closed by its request's end, or with the process."""
        for idle in self._idle.values():
            while (connection := self._kept(idle)) is not None:
                connection.close()


def _prepared(request: HttpRequest) -> tuple[httpcore.URL, list[tuple[bytes, bytes]]]:
    """Return URL and headers as they travel.

    Raises:
        ValueError, httpx.InvalidURL: no request can be made of them.
    """
    url, host = _place(request.url)
    fields = {
        "host": host,
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "attributary",
        **request.headers,
    }
    if request.method == "GET":
        del fields["content-type"], fields["content-length"]
    return url, [(name.encode("ascii"), text.encode("ascii")) for name, text in fields.items()]


@functools.lru_cache(maxsize=256)
def _place(text: str) -> tuple[httpcore.URL, str]:
    """Return a URL and its host; most requests of an account have the same.

    Raises:
        ValueError, httpx.InvalidURL: no request can be made of it.
    """
    parsed = httpx.URL(text)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise httpx.InvalidURL("no web address")
    url = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
    return url, parsed.netloc.decode("ascii")


def _decompressed(body: bytes) -> tuple[bytes, bool]:
    """Decompress as much as may be kept; say whether that is all."""
    reader = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        return reader.decompress(body, _MAX_ANSWER_BYTES), reader.eof
    except zlib.error:
        return b"", False


def _proxy_of(text: str) -> dict[str, Any]:
    url = httpx.URL(text)
    found: dict[str, Any] = {
        "proxy_url": httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    }
    if url.username or url.password:
        found["proxy_auth"] = (url.username.encode(), url.password.encode())
    return found


class _TimedNetwork(httpcore.SyncBackend, threading.local):
    """Sockets on which no request of a thread goes on beyond the thread's deadline.

    httpcore's own limits hold for one read or write: an answer of a byte a second would never meet them.
    """

    deadline = 0.0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = self.left(timeout, httpcore.ConnectTimeout)
        return _TimedStream(super().connect_tcp(host, port, left, local_address, socket_options), self)

    def left(self, timeout: float | None, fault: type[Exception]) -> float:
        """Return the seconds that an operation may take."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise fault
        return left if timeout is None else min(left, timeout)


class _TimedStream(httpcore.NetworkStream):
    """A socket with the deadline of the thread that uses it."""

    def __init__(self, stream: httpcore.NetworkStream, network: _TimedNetwork) -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):
            left = self._network.left(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _PIECE_BYTES], left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._network.left(timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
