"""The HTTP side of the fakes: keep-alive, one thread a connection, an admin surface, connections that break on order.

Contract: a fake gives `answer(Call) -> Reply`; everything about sockets is here. A `Reply` with `reset` closes the
connection without a byte, after whatever the fake has done with the request: the ambiguous outcome of real life.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

from attributary.local.fakes.faults import FaultScript, faults_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `after_seconds` delays it, `reset` breaks the connection instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0
    reset: bool = False


def json_reply(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Give an answer in JSON."""
    kind = {"content-type": "application/json; charset=UTF-8"}
    return Reply(status, json.dumps(document).encode(), kind | dict(headers or {}))


class Application(Protocol):
    """What a fake is to its server."""

    script: FaultScript
    kinds: frozenset[str]
    clock_offset: float

    def answer(self, call: Call) -> Reply:
        """Answer an API request."""
        ...

    def events(self) -> Any:
        """Give what was received, for the admin surface."""
        ...

    def clear(self) -> None:
        """Forget what was received."""
        ...


class FakeServer:
    """Serves a fake on the loopback.

    Args:
        application: the fake.
        port: 0 takes a free one.
    """

    def __init__(self, application: Application, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _handler(application))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Serve from a thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and break what is still connected."""
        self._server.shutdown()
        self._server.server_close()
        self._server.break_connections()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is no news to a fake

    def break_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _handler(application: Application) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            pass

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length) if length else b""
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, parts.path, parse_qs(parts.query, keep_blank_values=True), headers, body)
            self._send(_admin(application, call) if call.path.startswith("/_admin/") else application.answer(call))

        def _send(self, reply: Reply) -> None:
            if reply.after_seconds:
                time.sleep(reply.after_seconds)
            if reply.reset:
                # RST instead of an orderly end: the client sees the connection break without an answer.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}"]
            lines += [f"{name}: {value}" for name, value in reply.headers.items()]
            if reply.status != 204:
                lines.append(f"content-length: {len(reply.body)}")
            self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode() + reply.body)

    return Handler


def _admin(application: Application, call: Call) -> Reply:
    """/_admin/events (GET, DELETE), /_admin/faults (GET, POST a list), /_admin/clock (GET, POST offset_seconds)."""
    name = call.path.removeprefix("/_admin/")
    try:
        if name == "events":
            if call.method == "DELETE":
                application.clear()
            return json_reply(200, application.events())
        if name == "faults":
            if call.method == "POST":
                application.script.replace(faults_from_json(json.loads(call.body), application.kinds))
            waiting = [{"kind": f.kind, "times": f.times, "share": f.share} for f in application.script.faults]
            return json_reply(200, {"faults": waiting, "fired": application.script.fired})
        if name == "clock":
            if call.method == "POST":
                application.clock_offset = float(json.loads(call.body)["offset_seconds"])
            return json_reply(200, {"now": time.time() + application.clock_offset})
    except (ValueError, TypeError, KeyError) as error:
        return json_reply(400, {"error": f"{type(error).__name__}: {error}"})
    return json_reply(404, {"error": "known: events, faults, clock"})
