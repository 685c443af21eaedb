"""An embedded Postgres 18: the default database of the demo, the tests and `attributary up`.

Contract: `embedded_postgres()` yields a running server that belongs to this process and is stopped on the
way out, however the block ends; `start_postgres()` gives the same as a long-lived handle. `find_postgres()`
uses DATABASE_URL instead when it is set, and then starts and stops nothing.

The server listens on a Unix socket in a folder that only its owner may enter (that is `dsn`), and on a
loopback port with a random password (`tcp_dsn`, for clients without Unix sockets and for fault proxies).

Invariant: a commit that was acknowledged survives `kill()` of the server, also with `durable=False`, which
only gives up safety against a crash of the operating system.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

import psycopg.conninfo

from attributary.local.ports import free_port
from attributary.local.postgres_cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Postgres:
    """A database to work on, and the cluster behind it when it is ours."""

    dsn: str
    kind: Literal["given", "embedded"]
    cluster: Cluster | None = None

    def database(self, name: str) -> str:
        """The same server's DSN for another database."""
        return for_database(self.dsn, name)

    def describe(self) -> str:
        """One line for people."""
        if self.cluster is None:
            return "Postgres named by DATABASE_URL"
        return f"embedded Postgres in {self.cluster.data}"


def for_database(dsn: str, name: str) -> str:
    """The DSN of another database of the same server."""
    if "://" not in dsn:
        return psycopg.conninfo.make_conninfo(dsn, dbname=name)
    parts = urlsplit(dsn)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{quote(name, safe='')}{query}"


def start_postgres(
    data: Path | None = None, *, port: int | None = None, durable: bool = True, guarded: bool = True
) -> Postgres:
    """Start a server and return its handle; the caller stops it by `.cluster.stop()`.

    Args:
        data: Data folder; created when new. A temporary one, which `embedded_postgres` removes, when None.
        port: Loopback port; a free one when None.
        durable: False for clusters that are thrown away: no fsync.
        guarded: False lets the server outlive this process.
    """
    folder = data or Path(_temporary_home()) / "data"
    cluster = Cluster(folder.resolve(), port=port or free_port(), durable=durable, guarded=guarded)
    cluster.start()
    return Postgres(cluster.dsn, "embedded", cluster)


@contextmanager
def embedded_postgres(data: Path | None = None, *, port: int | None = None, durable: bool = True) -> Iterator[Postgres]:
    """A server for the length of a `with` block; a temporary data folder is removed at its end."""
    home = None if data is not None else Path(_temporary_home())
    try:
        postgres = start_postgres(data if home is None else home / "data", port=port, durable=durable)
        try:
            yield postgres
        finally:
            if postgres.cluster is not None:
                postgres.cluster.stop()
    finally:
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)


def given_dsn() -> str | None:
    """What DATABASE_URL, or the file that DATABASE_URL_FILE names, says; None when neither is set."""
    given = os.environ.get("DATABASE_URL", "").strip()
    if not given and (file := os.environ.get("DATABASE_URL_FILE")):
        given = Path(file).read_text(encoding="utf-8").strip()
    return given or None


@contextmanager
def find_postgres(data: Path | None = None, *, durable: bool = True) -> Iterator[Postgres]:
    """The given database, else an embedded one."""
    if given := given_dsn():
        yield Postgres(given, "given")
        return
    with embedded_postgres(data, durable=durable) as postgres:
        yield postgres


def _temporary_home() -> str:
    """A new folder that the user of the server may enter, too."""
    home = tempfile.mkdtemp(prefix="attributary-pg-")
    if os.geteuid() == 0:
        Path(home).chmod(0o711)
    return home
