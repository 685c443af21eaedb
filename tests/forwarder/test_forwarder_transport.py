"""The transport on hostile servers (S12): every request ends in time, in bounded memory, and as an answer."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.destinations.destination import HttpRequest, HttpResponse, ResponseClass
from attributary.consumers.destinations.ga4.destination import Ga4Destination
from attributary.consumers.destinations.meta import responses
from attributary.consumers.destinations.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 2.0  # for answers that never end
SECONDS_MAX = 60.0  # for those that do, on a busy machine
OK = b"HTTP/1.1 200 OK\r\n"
GOOD = b'{"events_received":1,"messages":[],"fbtrace_id":"T"}'


@contextmanager
def server(serve: Callable[[socket.socket], None], *, reads: bool = True) -> Iterator[str]:
    """A server that does what `serve` says with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(120.0)
            if reads:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65_536)
                seen.append(head)
            serve(connection)

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.close()


seen: list[bytes] = []


def sends(*parts: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(b"".join(parts))


def drips(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(1_800):
            time.sleep(0.1)
            connection.sendall(piece)

    return serve


def floods(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(5_000):
            connection.sendall(piece)

    return serve


def sized(body: bytes, more: bytes = b"", start: bytes = OK) -> bytes:
    return start + more + b"content-length: %d\r\n\r\n" % len(body) + body


def ask(url: str, body: bytes = b"{}", seconds: float = SECONDS) -> tuple[HttpResponse, float]:
    with HttpTransport(answer_seconds=seconds) as transport:
        started = time.monotonic()
        answer = transport.send(HttpRequest(url, body, {"authorization": "Bearer x"}))
        return answer, time.monotonic() - started


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
BOMB = gzip.compress(b"\0" * 30_000_000)
# What the server does; what Meta's rules and GA4's make of it.
HOSTILE: dict[str, tuple[Callable[[socket.socket], None], str, str]] = {
    "a byte a time in the body": (drips(OK + b"content-length: 9999\r\n\r\n", b"x"), "ambiguous", "delivered"),
    "a chunk a time": (drips(CHUNKED, b"1\r\nx\r\n"), "ambiguous", "delivered"),
    "a byte a time in the headers": (drips(OK + b"x: ", b"x"), "ambiguous", "ambiguous"),
    "a header a time": (drips(OK, b"a: b\r\n"), "ambiguous", "ambiguous"),
    "informational answers without end": (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "ambiguous", "ambiguous"),
    "nothing": (drips(b"", b""), "ambiguous", "ambiguous"),
    "closed at once": (lambda _: None, "ambiguous", "ambiguous"),
    "headers without end": (floods(OK, b"a: " + b"b" * 1_000 + b"\r\n"), "ambiguous", "ambiguous"),
    "a body without end": (floods(OK + b"\r\n", b"x" * 65_536), "ambiguous", "delivered"),
    "chunks without end": (floods(CHUNKED, b"400\r\n" + b"x" * 1_024 + b"\r\n"), "ambiguous", "delivered"),
    "broken chunking": (sends(CHUNKED, b"zz\r\n"), "ambiguous", "delivered"),
    "a huge chunk size": (sends(CHUNKED, b"f" * 40 + b"\r\nx"), "ambiguous", "delivered"),
    "cut short": (sends(OK + b"content-length: 99\r\n\r\nx"), "ambiguous", "delivered"),
    "two lengths": (sends(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx"), "ambiguous", "ambiguous"),
    "no HTTP": (sends(b"SSH-2.0-OpenSSH\r\n"), "ambiguous", "ambiguous"),
    "a bomb": (sends(sized(BOMB, b"content-encoding: gzip\r\n")), "ambiguous", "delivered"),
    "a deflate bomb": (
        sends(sized(zlib.compress(b"\0" * 30_000_000), b"content-encoding: deflate\r\n")), "ambiguous", "delivered",
    ),
    "broken gzip": (sends(sized(b"\x1f\x8bnot gzip", b"content-encoding: gzip\r\n")), "ambiguous", "delivered"),
    "an unknown coding": (sends(sized(b"???", b"content-encoding: br\r\n")), "ambiguous", "delivered"),
    "compressed all the same": (
        sends(sized(gzip.compress(GOOD), b"content-encoding: gzip\r\n")), "delivered", "delivered",
    ),
    "a redirect to itself": (
        sends(sized(b"", b"location: /\r\n", b"HTTP/1.1 307 T\r\n")), "channel_dead", "channel_dead",
    ),
    "a redirect to a file": (
        sends(sized(b"", b"location: file:///etc/passwd\r\n", b"HTTP/1.1 302 F\r\n")), "channel_dead", "channel_dead",
    ),
    "an error that breaks off": (
        sends(b'HTTP/1.1 400 Bad\r\ncontent-length: 99\r\n\r\n{"error":{"code":100'), "retry", "rejected",
    ),
    "a dead token in a page too long": (
        sends(sized(b" " * 70_000 + b'{"error":{"code":190}}', start=b"HTTP/1.1 400 B\r\n")), "retry", "rejected",
    ),
    "not ours, not JSON": (sends(sized(b"\xff\xfe\x00[[[[", start=b"HTTP/1.1 500 E\r\n")), "retry", "retry"),
    "a status of its own": (sends(sized(b"", start=b"HTTP/1.1 999 X\r\n")), "retry", "retry"),
    "good": (sends(sized(GOOD)), "delivered", "delivered"),
}  # fmt: skip
ENDLESS = {
    "a byte a time in the body", "a chunk a time", "a byte a time in the headers", "a header a time",
    "informational answers without end", "nothing",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_s12_every_answer_ends_in_time_and_means_something(kind: str) -> None:
    serve, meta, ga4 = HOSTILE[kind]
    with server(serve) as url:
        answer, seconds = ask(url + "/x?api_secret=s", seconds=SECONDS if kind in ENDLESS else SECONDS_MAX)
    assert seconds < 90.0, "within its time, on a busy machine: a drip lasts three minutes"
    assert len(answer.body) <= 65_536
    assert responses.classify(answer, 1).response_class.value == meta
    assert Ga4Destination().classify(answer, 1).response_class.value == ga4


def test_s12_a_bomb_takes_no_memory() -> None:
    with server(HOSTILE["a bomb"][0]) as url:
        tracemalloc.start()
        try:
            ask(url, seconds=SECONDS_MAX)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 3_000_000


def test_s12_no_coding_is_asked_for_and_the_connection_is_kept() -> None:
    seen.clear()
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        data = seen[0]
        while True:
            while not data.endswith(b"{}"):
                data += connection.recv(65_536)
            connection.sendall(sized(GOOD))
            data = connection.recv(65_536)
            if not data:
                return

    with server(serve) as url, HttpTransport(answer_seconds=SECONDS_MAX) as transport:
        for _ in range(3):
            assert transport.send(HttpRequest(url, b"{}")).status == 200
    assert b"accept-encoding: identity\r\n" in seen[0].lower()
    assert len(connections) == 1


def kept_open(connections: list[socket.socket], gate: threading.Semaphore) -> Callable[[socket.socket], None]:
    """A server that answers each request on a connection when the gate lets it."""

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        while True:
            assert gate.acquire(timeout=SECONDS_MAX)
            connection.sendall(sized(GOOD))
            if not connection.recv(65_536):
                return

    return serve


def test_threads_share_no_more_connections_than_they_may() -> None:
    connections: list[socket.socket] = []
    gate = threading.Semaphore(0)
    with (
        server(kept_open(connections, gate)) as url,
        HttpTransport(connections=2, answer_seconds=SECONDS_MAX) as transport,
        ThreadPoolExecutor(8) as threads,
    ):
        waiting = [threads.submit(transport.send, HttpRequest(url, b"")) for _ in range(8)]
        while len(connections) < 2:
            time.sleep(0.01)
        for _ in waiting:
            gate.release()
        assert [each.result().status for each in waiting] == [200] * 8
        assert len(connections) == 2


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        connection.sendall(sized(GOOD))

    with server(serve) as url, HttpTransport(answer_seconds=SECONDS_MAX) as transport:
        for number in range(3):
            assert transport.send(HttpRequest(url, b"")).status == 200
            # The server's thread closes after its answer; the end of the stream must have come to us.
            while len(connections) == number + 1 and connections[number].fileno() != -1:
                time.sleep(0.01)
    assert len(connections) == 3


def test_a_broken_answer_ends_its_connection() -> None:
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        connection.sendall(OK + b"content-length: 5\r\n\r\n{}" if len(connections) == 1 else sized(GOOD))

    with server(serve) as url, HttpTransport(answer_seconds=SECONDS_MAX) as transport:
        broken = transport.send(HttpRequest(url, b""))
        good = transport.send(HttpRequest(url, b""))
    assert (broken.status, broken.is_complete, good.is_complete) == (200, False, True)
    assert len(connections) == 2


def test_s12_a_server_that_reads_nothing_is_given_up() -> None:
    with server(lambda _: time.sleep(180.0), reads=False) as url:
        answer, seconds = ask(url, b"x" * 30_000_000)
    assert (answer.status, answer.perhaps_sent) == (0, True)
    assert seconds < 90.0


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/", "http://", "no address", "file:///etc/passwd", "http://127.0.0.1:99999/", "http://a b/",
        "http://127.0.0.1:1/\x00", "", "gopher://127.0.0.1/", "https://" + "a" * 70_000, "http://\ud800/",
    ],
)  # fmt: skip
def test_s12_what_is_no_address_is_not_sent(url: str) -> None:
    answer, _ = ask(url)
    assert (answer.status, answer.perhaps_sent) == (0, False)
    assert answer.fault
    assert responses.classify(answer, 1).response_class is ResponseClass.RETRY


@pytest.mark.parametrize("value", ["a\nb: c", "ü", "\x00", "\ud800", "a\rb"])
def test_s12_a_header_that_cannot_travel_is_not_sent(value: str) -> None:
    with server(sends(sized(GOOD))) as url, HttpTransport(answer_seconds=SECONDS) as transport:
        answer = transport.send(HttpRequest(url, b"{}", {"authorization": value}))
    assert (answer.status, answer.perhaps_sent) == (0, False)


def test_s29_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with server(sends(sized(b"proxy"))) as proxy, server(sends(sized(GOOD))) as url:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        netrc = f"{tmp_path}/netrc"
        with open(netrc, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", netrc)
        seen.clear()
        with HttpTransport(answer_seconds=SECONDS_MAX) as transport:
            assert transport.send(HttpRequest(url, b"{}")).body == GOOD
        assert b"authorization" not in seen[0].lower()
        with HttpTransport(answer_seconds=SECONDS_MAX, proxy=proxy.replace("//", "//me:secret@")) as transport:
            assert transport.send(HttpRequest(url, b"{}")).body == b"proxy"
        assert b"proxy-authorization: basic " in seen[-1].lower()
        assert seen[-1].startswith(b"POST " + url.encode())


def test_s29_a_proxy_that_refuses_the_tunnel_has_sent_nothing() -> None:
    refuses = sends(sized(b"", start=b"HTTP/1.1 407 Proxy\r\n"))
    with server(refuses) as proxy, HttpTransport(answer_seconds=SECONDS_MAX, proxy=proxy) as transport:
        answer = transport.send(HttpRequest("https://graph.example/", b"{}"))
    assert (answer.status, answer.fault, answer.perhaps_sent) == (0, "ProxyError", False)
