"""Postgres over TLS: the server's certificate is checked against its authority and its host.

The embedded Postgres is built without TLS, so a front of the tests' own ends it and passes the bytes on.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from attributary.consumers.store.connection import StoreUnavailable, connect
from tests.fixtures.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attributary.local.postgres import Postgres
    from tests.fixtures.certificates import Certificate

_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")  # of Postgres's protocol: length and code


class TlsFront:
    """Listens as a Postgres with TLS does, and hands each connection on to one without."""

    def __init__(self, certificate: Certificate, backend: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._backend = backend
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if client.recv(8) != _SSL_REQUEST:
                return
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as secured,
                socket.socket(socket.AF_UNIX) as backend,
            ):
                backend.connect(self._backend)
                threading.Thread(target=self._pump, args=(backend, secured), daemon=True).start()
                self._pump(secured, backend)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def front(postgres: Postgres, certificate: Certificate) -> Iterator[str]:
    """Address of Postgres behind TLS."""
    parts = conninfo_to_dict(postgres.dsn)
    if not str(parts["host"]).startswith("/"):
        pytest.skip("a Postgres that DATABASE_URL names has a TLS of its own")
    opened = TlsFront(certificate, f"{parts['host']}/.s.PGSQL.{parts['port']}")
    yield make_conninfo(postgres.dsn, host="127.0.0.1", port=opened.port, sslmode="verify-full")
    opened.close()


@pytest.fixture(scope="module")
def secured(postgres: Postgres, authority: Authority) -> Iterator[str]:
    yield from front(postgres, authority.sign("postgres"))


@pytest.fixture(scope="module")
def misnamed(postgres: Postgres, authority: Authority) -> Iterator[str]:
    yield from front(postgres, authority.sign("elsewhere", "127.0.0.2"))


def refusal(dsn: str, authority: Path | None) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        connect(make_conninfo(dsn, **({"sslrootcert": str(authority)} if authority else {})), application_name="tests")
    assert caught.value.is_setting
    return caught.value


def test_a_verified_server_is_used_encrypted(secured: str, authority: Authority) -> None:
    dsn = make_conninfo(secured, sslrootcert=str(authority.certificate))
    with connect(dsn, application_name="tests") as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_of_another_authority_is_refused(secured: str, tmp_path: Path) -> None:
    assert "TLS cannot be agreed on (sslmode)" in str(refusal(secured, Authority(tmp_path).certificate))


def test_a_server_with_the_certificate_of_another_host_is_refused(misnamed: str, authority: Authority) -> None:
    assert "its certificate is not for this host (sslmode=verify-full)" in str(refusal(misnamed, authority.certificate))


def test_an_authority_that_is_not_there_is_told(secured: str, tmp_path: Path) -> None:
    assert "the file of sslrootcert is not there" in str(refusal(secured, tmp_path / "nowhere.pem"))
