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


class Heartbeat:
    """When the loop last turned, and whether the stage can work; read by the probes' threads."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._last = time.monotonic()
        self._is_ready = is_ready
        self.started = False

    def beat(self) -> None:
        """Note that the loop turned."""
        self._last = time.monotonic()

    def alive(self) -> bool:
        """Tell whether the loop turned lately."""
        return time.monotonic() - self._last < LIVENESS_SECONDS

    def ready(self) -> bool:
        """Tell whether the process has joined its group and its dependencies answer."""
        return self.started and self.alive() and self._is_ready()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


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
        raise ConfigError("METRICS_PORT", f"cannot listen ({error.strerror})") from None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return int(server.server_port)
