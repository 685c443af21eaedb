"""/metrics, /livez and /readyz of a process, on one port.

Liveness asks only whether the poll loop turns: a rebalance, a pause or an outage of Kafka or Postgres never makes a
process look dead, a restart would not help. Readiness asks whether the stage's dependencies answer; a worker without
a partition is ready.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from .errors import ConfigError

# Longer than the loop is ever expected to be busy with one batch, outages of Kafka in the middle of it included.
LIVENESS_SECONDS = 300.0

_MAX_THREADS = 16
_SOCKET_SECONDS = 5.0


class Heartbeat:
    """When the loop last turned, and whether the stage can work; read by the probes' threads."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._last = time.monotonic()
        self._is_ready = is_ready
        self.started = False

    def beat(self) -> None:
        """Note that the loop turned."""
        self._last = time.monotonic()

    def silent_seconds(self) -> float:
        """Return the time since the loop last turned, seconds; called by the threads that serve metrics."""
        return time.monotonic() - self._last

    def alive(self) -> bool:
        """Tell whether the loop turned lately."""
        return self.silent_seconds() < LIVENESS_SECONDS

    def ready(self) -> bool:
        """Tell whether the process has joined its group and its dependencies answer."""
        return self.started and self.alive() and self._is_ready()


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread, of which there are few: who sends nothing, or half a request, is let go."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._free = threading.BoundedSemaphore(_MAX_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_SOCKET_SECONDS)
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # a client that is slow or gone
        pass


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        pass


def serve(host: str, port: int, heartbeat: Heartbeat) -> int:
    """Serve the three paths from a daemon thread.

    Returns:
        The port that is served (the one asked for, or a free one for 0).

    Raises:
        ConfigError: when the port is taken or not allowed.
    """
    metrics = make_wsgi_app()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]  # WSGI is untyped
        checks = {"/livez": heartbeat.alive, "/readyz": heartbeat.ready}
        if path not in checks:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"paths: /metrics /livez /readyz\n"]
        good = checks[path]()
        start_response("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if good else b"no\n"]

    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ConfigError(
            "METRICS_PORT", f"cannot listen on port {port} ({error.strerror}); 0 takes any free one"
        ) from None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return int(server.server_port)
