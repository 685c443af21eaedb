"""The collector's process: parts are opened in order, requests are served, a signal ends it without a loss.

The way down: 1. readiness says no, requests are still served for ``drain_seconds``, so that a load balancer notices;
2. the listener closes, and requests in hand get their answers; 3. what is in flight to the log gets its outcome, or was
spooled by its request; 4. the spool writes what waits. A second signal ends the process at once.

Invariant: an answer 200 or 202 that a client got before the end is in the log or in the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from attributary.producers.client import AttributaryProducer
from attributary.producers.collector import metrics
from attributary.producers.collector.access import Access
from attributary.producers.collector.app import Collector, create_app
from attributary.producers.collector.bridge import LogBridge
from attributary.producers.collector.config import CollectorConfig, ServerOptions
from attributary.producers.collector.drain import Drain
from attributary.producers.collector.edge import Edge
from attributary.producers.collector.intake import Intake
from attributary.producers.collector.keys import KeyRing, KeysError
from attributary.producers.collector.mapping import load_tables
from attributary.producers.collector.protocol import bounded
from attributary.producers.collector.spool import DiskSpool
from attributary.producers.transport import Transport

EDGES = ("webhooks", "page")
"""Packages beside this module with a module ``routes``: its ``routes(collector)`` are added, and its ``ENDPOINTS``."""
LOG_SETTINGS = {
    "linger.ms": 5,
    "delivery.timeout.ms": 10_000,  # the 120 s of the client outlive every HTTP request
    "queue.buffering.max.kbytes": 65_536,
    "queue.buffering.max.messages": 50_000,
}
_TICK_SECONDS = 1.0
_BACKLOG = 1024
_FLUSH_SECONDS = 10.0
_EXIT_CUT_SHORT = 75

logger = logging.getLogger("attributary.collector")


class CollectorServer:
    """One collector process.

    Attributes:
        has_failed: it ended because the producer failed for good; what it held is in the spool.

    Args:
        config: settings of the requests.
        options: settings of the process.
        sealer: seals records.
        transport: carries them to the log; closed at the end.
        beat: called about once a second while the loop turns.

    Raises:
        KeysError: the file of keys cannot be used.
        OSError: the spool's folder cannot be used.
    """

    def __init__(
        self,
        config: CollectorConfig,
        options: ServerOptions,
        sealer: AttributaryProducer,
        transport: Transport,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        load_tables()
        self._config = config
        self._options = options
        self._beat = beat
        self._keys = KeyRing(config.keys_file)
        self._spool = None if options.spool_folder is None else DiskSpool(options.spool_folder, options.spool_bytes)
        self._bridge = LogBridge(transport, on_fatal=self._end_for_good)
        collector = Collector(config, Intake(sealer, self._bridge, self._spool), Access(self._keys, config), self._keys)
        routes, endpoints = edge_routes(collector)
        self.app: Edge = create_app(collector, routes, endpoints)
        self._stopping = asyncio.Event()
        self.is_serving = False
        self.has_failed = False
        self._was_asked = False

    @property
    def is_ready(self) -> bool:
        """Whether a record can be kept: by the log or by the spool; false once the process is about to stop."""
        can_keep = not self._bridge.is_away or (self._spool is not None and self._spool.can_take)
        return self.is_serving and not self._stopping.is_set() and can_keep

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT.

        Args:
            listener: a bound socket.
        """
        self._bridge.start()
        background = [asyncio.create_task(self._tick())]
        if self._spool is not None:
            self._spool.start()
            drain = Drain(self._spool, self._bridge, self._options.drain_records_per_second)
            background.append(asyncio.create_task(drain.run()))
        server = SignalFreeServer(self.app, self._config, self._options.stop_seconds)
        with stop_signals(self.stop):
            serving = asyncio.create_task(server.serve([listener]))
            begin_listening(listener, logger)
            self.is_serving = True
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                logger.info("asked to stop: requests are served for %g s more", self._options.drain_seconds)
                await asyncio.wait({serving}, timeout=self._options.drain_seconds)
            server.should_exit = True
            await serving
            await self._close(background)

    async def _close(self, background: Sequence[asyncio.Task[None]]) -> None:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        given_up = await self._bridge.stop(_FLUSH_SECONDS)
        if self._spool is not None:
            await asyncio.to_thread(self._spool.close)
        logger.info("stopped; %d messages in flight had no outcome, their requests spooled them", given_up)

    async def _tick(self) -> None:
        while True:
            self._beat()
            try:
                if await asyncio.to_thread(self._keys.refresh):
                    logger.info("the file of keys was read again")
                    metrics.keys_stale.set(0)
            except KeysError as error:
                metrics.keys_stale.set(1)
                logger.error("the file of keys cannot be used, the keys of before stay: %s", error)  # noqa: TRY400
            if self._spool is not None:
                await asyncio.to_thread(self._spool.show)
            metrics.queue_messages.set(self._bridge.in_flight)
            metrics.log_away.set(self._bridge.is_away)
            await asyncio.sleep(_TICK_SECONDS)

    def _end_for_good(self, error: object) -> None:
        """Begin to stop: a producer that failed for good sends nothing more, a new process has a new one."""
        logger.error("the producer failed for good (%s): the process ends and must be started again", error)
        self.has_failed = True
        self._stopping.set()

    def stop(self) -> None:
        """Begin to stop; called on the loop. A second call ends the process at once."""
        if self._was_asked:
            os._exit(_EXIT_CUT_SHORT)
        self._was_asked = True
        self._stopping.set()


class SignalFreeServer(uvicorn.Server):
    """Uvicorn's server within the collector's limits, which leaves the signals to us. The read API uses it as well.

    Args:
        app: what answers, ASGI.
        config: limits of requests and connections.
        stop_seconds: for requests in hand, once it is asked to stop.
    """

    def __init__(self, app: ASGIApp, config: CollectorConfig, stop_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(config),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=int(config.idle_seconds) or 1,
                timeout_graceful_shutdown=int(stop_seconds) or 1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def begin_listening(listener: socket.socket, log: logging.Logger) -> None:
    """Listen and say so: neither log nor readiness may say yes while connections would be refused.

    Args:
        listener: a bound socket.
        log: of the process.
    """
    listener.listen(_BACKLOG)
    log.info("listening on port %d", listener.getsockname()[1])


def edge_routes(collector: Collector) -> tuple[list[BaseRoute], list[str]]:
    """Return the routes of the edges that are there, and the ends of their paths for metrics."""
    routes: list[BaseRoute] = []
    endpoints: list[str] = []
    for edge in EDGES:
        package = f"{__package__}.{edge}"
        if importlib.util.find_spec(package) and importlib.util.find_spec(f"{package}.routes"):
            module = importlib.import_module(f"{package}.routes")
            routes += module.routes(collector)
            endpoints += getattr(module, "ENDPOINTS", ())
    return routes, endpoints


@contextlib.contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on the running loop for SIGTERM and SIGINT while the block runs."""
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
