"""A TCP proxy that cuts, delays and holds: what a network does to a connection, on order.

Runs in a thread of its own with its own event loop; every control is safe to call from the test's thread.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Self

_CHUNK = 65_536


class Proxy:
    """Forwards 127.0.0.1:port to a target; use as a context manager.

    Args:
        target: host and port, or the path of a Unix socket.
        port: where to listen.
    """

    def __init__(self, target: tuple[str, int] | str, port: int) -> None:
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self._open = asyncio.Event()  # cleared: bytes to the target wait
        self._refusing = False
        self.cut_connections = 0
        self.held_chunks = 0
        self.delayed_chunks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Break every connection and refuse new ones until `heal`."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._break)

    def hold(self) -> None:
        """Keep what clients send from the target, and the connections open, until `heal`: one-way loss."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def delay(self, seconds: float) -> None:
        """Let everything that clients send wait so long."""
        self._delay = seconds

    def heal(self) -> None:
        """Let everything through again; what was held arrives now, late."""
        self._refusing = False
        self._delay = 0.0
        self._loop.call_soon_threadsafe(self._open.set)

    def redirect(self, target: tuple[str, int]) -> None:
        """Lead new connections elsewhere."""
        self._target = target

    async def _listen(self) -> asyncio.Server:
        self._open.set()
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        self._break()
        self._open.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _break(self) -> None:
        for writer in list(self._writers):
            self.cut_connections += 1
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            if isinstance(self._target, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pipes = (self._pipe(reader, far_writer, to_target=True), self._pipe(far_reader, writer, to_target=False))
        for pipe in pipes:
            task = asyncio.ensure_future(pipe)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_target: bool) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(_CHUNK):
                if to_target and self._delay:
                    self.delayed_chunks += 1
                    await asyncio.sleep(self._delay)
                if to_target and not self._open.is_set():
                    self.held_chunks += 1
                    await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
