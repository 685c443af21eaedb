"""A TCP proxy that cuts, delays and holds: what a network does to a connection, on order.

Runs in a thread of its own with its own event loop; every control is safe to call from the test's thread.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 65_536
_ANSWER_SECONDS = 120.0


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
        self._answers_open = asyncio.Event()  # cleared: bytes from the target wait
        self._released = asyncio.Event()  # set: what `stop_next` kept goes on
        self._answered = asyncio.Event()  # set: the target has answered to it
        self._refusing = False
        self._stopper: Callable[[bytes], bool] | None = None  # the next bytes to the target that it takes wait alone
        self._stopped: asyncio.StreamWriter | None = None  # to the client whose bytes wait
        self.cut_connections = 0
        self.held_chunks = 0
        self.held_answers = 0
        self.delayed_chunks = 0
        self.delayed_answers = 0
        self.stopped_chunks = 0
        self.late_answers = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(120)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(120)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(120)
        self._loop.close()

    def cut(self) -> None:
        """Break every connection and refuse new ones until `heal`."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._break)

    def hold(self) -> None:
        """Keep what clients send from the target, and the connections open, until `heal`: one-way loss."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def hold_answers(self) -> None:
        """Let everything reach the target and nothing come back, connections open, until `heal`."""
        self._loop.call_soon_threadsafe(self._answers_open.clear)

    def delay(self, seconds: float) -> None:
        """Let everything wait so long, in both directions."""
        self._delay = seconds

    def stop_next(self, matches: Callable[[bytes], bool]) -> None:
        """Keep the next bytes that match from the target, and what follows on their connection, until `heal`."""
        self._stopper = matches

    def sever_stopped(self) -> None:
        """Break the client's side of the connection whose bytes were kept; they arrive at the target all the same."""
        stopped = self._stopped
        assert stopped is not None
        self._loop.call_soon_threadsafe(stopped.transport.abort)

    def heal(self) -> None:
        """Let everything through again; what was held arrives now, late."""
        self._refusing = False
        self._delay = 0.0
        self._stopper = None
        for gate in (self._open, self._answers_open):
            self._loop.call_soon_threadsafe(gate.set)
        self._loop.call_soon_threadsafe(self._released.set)

    def redirect(self, target: tuple[str, int]) -> None:
        """Lead new connections elsewhere."""
        self._target = target

    async def _listen(self) -> asyncio.Server:
        self._open.set()
        self._answers_open.set()
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        self._break()
        for gate in (self._open, self._answers_open, self._released):
            gate.set()
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
        for pipe in (self._requests(reader, far_writer, writer), self._answers(far_reader, writer)):
            task = asyncio.ensure_future(pipe)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with self._counted(writer):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    self.delayed_chunks += 1
                    await asyncio.sleep(self._delay)
                if self._stopper is not None and self._stopper(data):
                    self._stopper, self._stopped = None, client
                    self._released.clear()
                    self._answered.clear()
                    self.stopped_chunks += 1
                    await self._released.wait()
                    writer.write(data)
                    # Whoever sent it may be gone; the target's answer proves that it arrived and was understood.
                    await asyncio.wait_for(self._answered.wait(), _ANSWER_SECONDS)
                    continue
                if not self._open.is_set():
                    self.held_chunks += 1
                    await self._open.wait()
                writer.write(data)
                await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with self._counted(client):
            while data := await reader.read(_CHUNK):
                if client is self._stopped and self._released.is_set():
                    self.late_answers += 1
                    self._answered.set()
                if self._delay:
                    self.delayed_answers += 1
                    await asyncio.sleep(self._delay)
                if not self._answers_open.is_set():
                    self.held_answers += 1
                    await self._answers_open.wait()
                client.write(data)
                await client.drain()

    @contextmanager
    def _counted(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Keep a writer among those that `cut` breaks, and break it at the end."""
        self._writers.add(writer)
        try:
            yield
        except (OSError, TimeoutError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
