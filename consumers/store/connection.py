"""Connections to Postgres, and what its errors mean for us.

Invariant: sessions run at READ COMMITTED in UTC; an outage, a shutdown, a server that only reads, a deadlock or a
serialisation failure becomes ``StoreUnavailable`` (try again, nothing is lost), a value that Postgres cannot hold stays
what it is, ``refusals.UNSTORABLE`` (look for the one record).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors

from attributary.consumers.store.events.rejected_values import UNSTORABLE

_RETRYABLE = (
    psycopg.OperationalError,  # includes connection loss, admin shutdown, deadlock, lock timeouts, disk full
    psycopg.InterfaceError,  # the connection was found closed
    errors.SerializationFailure,
    errors.ReadOnlySqlTransaction,  # a replica that is not promoted yet, or a server on its way down
    errors.IdleInTransactionSessionTimeout,  # we were stopped for so long that the server let go of us
)


class StoreUnavailable(Exception):
    """Postgres did not take the transaction for a reason outside the data; the same work may be tried again."""


def connect(dsn: str, *, application_name: str, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection.

    Args:
        dsn: ``postgresql://...``; never logged.
        application_name: shown in ``pg_stat_activity``, for example ``attributary-stitcher``.
        autocommit: True for single statements and listening.

    Raises:
        StoreUnavailable: Postgres does not answer or refuses us; the text names neither user nor host.
    """
    try:
        return psycopg.connect(
            dsn,
            autocommit=autocommit,
            application_name=application_name,
            connect_timeout=10,
            options="-c timezone=UTC -c default_transaction_isolation=read\\ committed",
            # A prepared statement may keep a plan that was made when the tables were empty (decision 4).
            prepare_threshold=None,
        )
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"Postgres does not answer: {_sqlstate(error)}") from None


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what is worth another try into ``StoreUnavailable``.

    Raises:
        StoreUnavailable: an outage, a deadlock, a full disk; the text names the SQLSTATE only.
    """
    try:
        yield
    except UNSTORABLE:
        raise
    except _RETRYABLE as error:
        raise StoreUnavailable(f"Postgres gave up: {_sqlstate(error)}") from error


def _sqlstate(error: psycopg.Error) -> str:
    return f"{type(error).__name__} {error.sqlstate or '(no answer)'}"
