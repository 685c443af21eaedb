"""A few connections to Postgres for many requests.

Invariants: every piece of work runs in one snapshot, read only, under a statement timeout; no more connections than
``size``; a request waits at most ``wait_seconds`` for one. Trouble of Postgres becomes ``StoreBusy``, never a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg import errors

from attributary.consumers.store.access.policies import TENANT_SETTING
from attributary.consumers.store.connection import StoreUnavailable, connect, translated_errors, with_timeouts

T = TypeVar("T")

_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_FOR_TENANT = "SELECT set_config(%s, %s, true)"  # until the transaction ends
_LOCK_SECONDS = 2.0
_NAME = "attributary-serve"


class StoreBusy(Exception):  # a state, as StoreUnavailable
    """The store does not answer in time; the text says why, and what may help."""


class ReadPool:
    """Connections that only read.

    Args:
        dsn: ``postgresql://...``; never logged.
        size: most connections.
        wait_seconds: how long a request waits for one.
        statement_seconds: how long one statement may take.

    Raises:
        DsnError: the address is none.
    """

    def __init__(self, dsn: str, *, size: int, wait_seconds: float, statement_seconds: float) -> None:
        self._dsn = with_timeouts(dsn, statement_seconds=statement_seconds, lock_seconds=_LOCK_SECONDS)
        self._wait_seconds = wait_seconds
        self._statement_seconds = statement_seconds
        self._free = asyncio.Semaphore(size)
        self._idle: list[psycopg.Connection] = []

    async def run(self, work: Callable[[psycopg.Connection], T], tenant_id: str | None) -> T:
        """Do some reading in a thread.

        Args:
            work: reads; given a connection inside a snapshot.
            tenant_id: the tenant that asks: row security shows a login of the API's own role its rows alone, and none
                where it is None.

        Raises:
            StoreBusy: Postgres is away, or too slow, or all connections are in use.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise StoreBusy("All connections to the database are in use.") from None
        reading = asyncio.ensure_future(asyncio.to_thread(self._run, work, tenant_id))
        reading.add_done_callback(self._done)
        # Shielded: the statement of a client that went away ends by itself, and holds its connection until then.
        return await asyncio.shield(reading)

    def _done(self, reading: asyncio.Future[T]) -> None:
        self._free.release()
        if not reading.cancelled():
            reading.exception()  # that of a client that went away is nobody's

    def _run(self, work: Callable[[psycopg.Connection], T], tenant_id: str | None) -> T:
        connection: psycopg.Connection | None = None
        is_sound = False  # whether the connection may serve another request
        try:
            with translated_errors():
                connection = self._idle.pop() if self._idle else connect(self._dsn, application_name=_NAME)
                with connection.transaction():
                    connection.execute(_SNAPSHOT)
                    connection.execute(_FOR_TENANT, (TENANT_SETTING, tenant_id or ""))
                    found = work(connection)
            is_sound = True
        except StoreUnavailable as error:
            if isinstance(error.__cause__, errors.QueryCanceled):
                is_sound = True
                raise StoreBusy(
                    f"The query took longer than {self._statement_seconds:g} s. Ask for a shorter period or fewer rows."
                ) from None
            raise StoreBusy("The database does not answer.") from error
        finally:
            if connection is not None and is_sound and not connection.closed:
                self._idle.append(connection)
            elif connection is not None:
                connection.close()
        return found

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            with contextlib.suppress(psycopg.Error):
                self._idle.pop().close()
