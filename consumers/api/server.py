"""The read API's process: a private listener, and a signal that ends it after the requests in hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from starlette.applications import Starlette

from attributary.consumers.api.app import create_app
from attributary.consumers.api.handlers import Handlers
from attributary.consumers.api.pool import ReadPool
from attributary.consumers.api.settings import ServeSettings
from attributary.producers.collector.access import Access
from attributary.producers.collector.keys import KeyRing, KeysError
from attributary.producers.collector.server import SignalFreeServer, begin_listening, stop_signals

_TICK_SECONDS = 1.0
_STOP_SECONDS = 15

logger = logging.getLogger("attributary.api")


class ApiServer:
    """One process of the read API.

    Args:
        settings: of the process.
        pool: connections that read; closed at the end.
        handlers: the endpoints' work.
        version: of the project.
        beat: called about once a second while the loop turns.

    Raises:
        KeysError: the file of keys cannot be used.
    """

    def __init__(
        self,
        settings: ServeSettings,
        pool: ReadPool,
        handlers: Handlers,
        version: str,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = settings.config()
        self._pool = pool
        self._beat = beat
        self._keys = KeyRing(settings.keys_file)
        self._stopping = asyncio.Event()
        self.app: Starlette = create_app(handlers, Access(self._keys, self._config), version)
        self.is_serving = False

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT; requests in hand get their answers.

        Args:
            listener: a bound socket.
        """
        server = SignalFreeServer(self.app, self._config, _STOP_SECONDS)
        ticking = asyncio.create_task(self._tick())
        with stop_signals(self.stop):
            serving = asyncio.create_task(server.serve([listener]))
            stopping = asyncio.create_task(self._stopping.wait())
            begin_listening(listener, logger)
            self.is_serving = True
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self.is_serving = False
            server.should_exit = True
            await serving
        for task in (ticking, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._pool.close()

    def stop(self) -> None:
        """Begin to stop; called on the loop."""
        self._stopping.set()

    async def _tick(self) -> None:
        while True:
            self._beat()
            try:
                await asyncio.to_thread(self._keys.refresh)
            except KeysError as error:
                logger.error("the file of keys cannot be used, the keys of before stay: %s", error)  # noqa: TRY400
            await asyncio.sleep(_TICK_SECONDS)
