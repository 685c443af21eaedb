"""Connections to Postgres, and what its errors mean for us.

Invariant: sessions run at READ COMMITTED in UTC; an outage, a shutdown, a server that only reads, a deadlock or a
serialisation failure becomes ``StoreUnavailable`` (try again, nothing is lost), a value that Postgres cannot hold stays
what it is, ``refusals.UNSTORABLE`` (look for the one record).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg.conninfo
from psycopg import errors

from attributary.consumers.store.array_parameters import use_flat_lists
from attributary.consumers.store.events.rejected_values import UNSTORABLE

_RETRYABLE = (
    psycopg.OperationalError,  # includes connection loss, admin shutdown, deadlock, lock timeouts, disk full
    psycopg.InterfaceError,  # the connection was found closed
    errors.SerializationFailure,
    errors.ReadOnlySqlTransaction,  # a replica that is not promoted yet, or a server on its way down
    errors.IdleInTransactionSessionTimeout,  # we were stopped for so long that the server let go of us
)


class StoreUnavailable(Exception):
    """Postgres did not take the transaction for a reason outside the data; the same work may be tried again.

    Args:
        message: what was tried and what answered; never a password.
        is_setting: the server answered and refused us, so a setting is wrong.
    """

    def __init__(self, message: str, *, is_setting: bool = False) -> None:
        super().__init__(message)
        self.is_setting = is_setting


class DsnError(ValueError):
    """DATABASE_URL is no address of a Postgres; the text says the rule, never the value."""


CONNECT_SECONDS = 5
# A server that dies without a word, or a link that is cut, is noticed within this time and not after two hours.
_TCP = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
_OPTIONS = "-c timezone=UTC -c default_transaction_isolation=read\\ committed"

# What may be shown of an address: anything else may be a piece of a password that was not percent-encoded.
_HOST = re.compile(r"[\w.:/%\[\],-]*")
_PORT = re.compile(r"[\d,]*")
_DATABASE = re.compile(r"[\w.-]*")

# libpq's words -> what they mean here, and whether it is a setting. Its own text is never passed on: it quotes.
_REASONS: tuple[tuple[str, str, bool], ...] = (
    ("password authentication failed", "the server refuses the user or the password", True),
    ("no password supplied", "the server wants a password", True),
    ("no pg_hba.conf entry", "the server does not let this client in (pg_hba.conf)", True),
    ("is not permitted to log in", "the server answers, but the user may not log in", True),
    ('role "', "the server answers, but has no such user", True),
    ("root certificate file", "the file of sslrootcert is not there", True),
    ("does not exist", "the server answers, but has no such database", True),
    ("permission denied for database", "the server answers, but the user may not open this database", True),
    ("not currently accepting connections", "the server lets nobody into this database", True),
    ("too many connections for", "the database or the user has no free connection", False),
    ("could not translate host name", "the name of the host is unknown", True),
    ("failed to resolve host", "the name of the host is unknown", True),
    ("invalid response to SSL negotiation", "what listens there is no Postgres", True),
    ("expected authentication request", "what listens there is no Postgres", True),
    ("does not match host name", "its certificate is not for this host (sslmode=verify-full)", True),
    ("SSL", "TLS cannot be agreed on (sslmode)", True),
    ("Connection refused", "nothing listens there", False),
    ("No such file or directory", "nothing listens there", False),
    ("timeout", f"no answer within {CONNECT_SECONDS} s", False),
    ("closed the connection unexpectedly", "what listens there hangs up", False),
    ("No route to host", "no route to that host", False),
    ("Network is unreachable", "the network is unreachable", False),
    ("remaining connection slots", "the server has no free connection", False),
    ("too many clients", "the server has no free connection", False),
    ("starting up", "the server is starting up", False),
    ("shutting down", "the server is shutting down", False),
)


def check_dsn(dsn: str) -> dict[str, str]:
    """Return the parts of an address of Postgres, by libpq's names.

    Raises:
        DsnError: it is none, or holds a character that must be percent-encoded.
    """
    rule = "must be postgresql://user:password@host:port/database"
    try:
        parts = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(dsn).items()}
    except (psycopg.Error, ValueError):
        raise DsnError(f"{rule}, with the characters @ / : ? # % of user and password percent-encoded") from None
    shown = ((_HOST, "host"), (_HOST, "hostaddr"), (_PORT, "port"), (_DATABASE, "dbname"))
    behind_host = re.split(r"[/?#]", dsn.partition("://")[2], maxsplit=1)[1:]  # a raw / ? # in a password ends the host
    if not all(pattern.fullmatch(parts.get(name, "")) for pattern, name in shown) or "@" in "".join(behind_host):
        raise DsnError(
            f"{rule}; host, port or database hold a character that they cannot have: is one of @ / : ? # % in user or "
            "password not percent-encoded?"
        )
    if not all(0 < int(port) < 65_536 for port in parts.get("port", "").split(",") if port):
        raise DsnError(f"{rule}, with a port from 1 to 65535")
    return parts


def connect(dsn: str, *, application_name: str, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection.

    Args:
        dsn: ``postgresql://...``; never logged.
        application_name: shown in ``pg_stat_activity``, for example ``attributary-stitcher``.
        autocommit: True for single statements and listening.

    Raises:
        StoreUnavailable: Postgres does not answer or refuses us; the text names host, port and database.
        DsnError: the address is none.
    """
    parts = check_dsn(dsn)
    ours: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, **_TCP}
    try:
        connection = psycopg.connect(
            dsn,
            autocommit=autocommit,
            application_name=application_name,
            options=f"{parts.get('options', '')} {_OPTIONS}".strip(),
            # A prepared statement may keep a plan that was made when the tables were empty: who prepares says when
            # plans are kept, and for how long (decision 4).
            prepare_threshold=None,
            client_encoding="utf8",
            **{name: value for name, value in ours.items() if name not in parts},
        )
    except psycopg.OperationalError as error:
        reason, is_setting = _reason(error)
        host = parts.get("host") or parts.get("hostaddr") or "the local socket"
        where = f"{host}:{parts.get('port', 5432)}, database {parts.get('dbname') or '(the name of the user)'}"
        raise StoreUnavailable(f"Postgres at {where}: {reason}", is_setting=is_setting) from None
    use_flat_lists(connection)
    return connection


def with_timeouts(dsn: str, *, statement_seconds: float, lock_seconds: float) -> str:
    """Return the address with time limits for every statement and for every wait for a lock; 0: none.

    Raises:
        DsnError: the address is none.
    """
    limits = f"-c statement_timeout={statement_seconds * 1_000:.0f} -c lock_timeout={lock_seconds * 1_000:.0f}"
    given = check_dsn(dsn).get("options", "")  # what the operator wrote comes last and wins
    return psycopg.conninfo.make_conninfo(dsn, options=f"{limits} {given}".strip())


def _reason(error: psycopg.OperationalError) -> tuple[str, bool]:
    text = str(error)
    for words, reason, is_setting in _REASONS:
        if words in text:
            return reason, is_setting
    return f"it does not answer, or not to us ({_sqlstate(error)})", False


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
