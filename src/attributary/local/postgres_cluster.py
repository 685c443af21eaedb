"""One embedded Postgres server: its data folder, its process, its two addresses.

Contract: `start` creates what is missing and returns when the server answers; `stop` is Postgres' fast
shutdown; after `kill`, a crash, the next `start` recovers. Port, socket and password stay the same.

Invariant: a commit that was acknowledged survives `kill`, also of a cluster that is not durable: that only
gives up safety against a crash of the operating system.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import stat
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

from attributary.local.ports import LOOPBACK
from attributary.local.postgres_install import Account, Install, account_for, find_install
from attributary.local.process import ManagedProcess, run, spawn, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUPERUSER = "attributary"
# sockaddr_un holds 108 bytes; ".s.PGSQL.12345.lock" is appended to the folder.
_SOCKET_FOLDER_LIMIT = 85
_START_SECONDS = 180.0

_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "logging_collector": "off",
    # Room for bulk statements over many partitions without running out of the shared lock table.
    "max_locks_per_transaction": "128",
}
_THROW_AWAY = {"fsync": "off", "full_page_writes": "off"}


class Cluster:
    """One embedded Postgres server with its data folder.

    Args:
        data: the folder; created when it is new.
        port: of TCP on loopback and of the socket.
        durable: False for what is thrown away: no fsync.
        guarded: False lets the server outlive this process.
        init: further options of initdb.
        settings: further settings of the server; they win.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int,
        durable: bool,
        guarded: bool = True,
        init: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.port = port
        self._durable = durable
        self._guarded = guarded
        self._init = init
        self._extra = settings or {}
        self._install: Install = find_install()
        self._account: Account | None = None
        self._sockets: Path | None = None
        self._child: ManagedProcess | None = None

    def __repr__(self) -> str:
        return f"<Cluster {self.data} port={self.port} {self._child!r}>"

    @property
    def dsn(self) -> str:
        """Unix socket; access is guarded by the folder's mode."""
        return f"postgresql://{_SUPERUSER}@/postgres?host={quote(str(self._sockets), safe='')}&port={self.port}"

    @property
    def tcp_dsn(self) -> str:
        """Loopback TCP with the password of this cluster."""
        return f"postgresql://{_SUPERUSER}:{self._password()}@{LOOPBACK}:{self.port}/postgres"

    @property
    def child(self) -> ManagedProcess:
        """The server process."""
        if self._child is None:
            raise RuntimeError("the cluster is not running")
        return self._child

    def start(self) -> None:
        """Create the data folder when it is new, start the server and wait until it answers."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._account = account_for(self.data)
        if not (self.data / "PG_VERSION").exists():
            self._create()
        self._sockets = self._socket_folder()
        settings = {**_SETTINGS, **({} if self._durable else _THROW_AWAY)}
        settings |= {**self._extra, "unix_socket_directories": str(self._sockets), "listen_addresses": LOOPBACK}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = self._command("postgres", "-D", str(self.data), "-p", str(self.port), *flags)
        self._child = spawn(
            argv,
            name="Postgres",
            log=self.data.parent / f"{self.data.name}.log",
            # SIGINT is Postgres' fast shutdown: roll back what is open, write a checkpoint, end.
            stop_signal=signal.SIGINT,
            guarded=self._guarded,
            identity=self._identity(argv),
        )
        with ExitStack() as undo:
            undo.callback(self._child.kill)
            wait_until_ready(self._child, self._refusal, timeout_seconds=_START_SECONDS)
            undo.pop_all()  # it is up: keep it

    def stop(self) -> None:
        """Fast shutdown; the data stays."""
        if self._child is not None:
            self._child.stop(timeout_seconds=30.0)
            self._child = None
        if self._sockets is not None and self._sockets.parent != self.data:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def kill(self) -> None:
        """SIGQUIT, Postgres' own crash: all processes end at once, the next start recovers from the WAL."""
        self.child.stop(timeout_seconds=10.0, number=signal.SIGQUIT)

    def restart(self) -> None:
        """Stop if it runs, and start again on the same port and socket."""
        if self._child is not None and self._child.running:
            self._child.stop(timeout_seconds=30.0)
        self.start()

    def replica(self, data: Path, *, port: int) -> Cluster:
        """Copy this running server into a streaming replica of it, which is not started yet.

        Args:
            data: its data folder, new, beside this one.
            port: its port.
        """
        data.mkdir(mode=0o700)
        shutil.copyfile(self._password_file(self.data), self._password_file(data))
        if self._account is not None:
            os.chown(data, self._account.uid, self._account.gid)
        argv = self._command(
            "pg_basebackup",
            f"--pgdata={data}",
            f"--dbname={self.dsn}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            *([] if self._durable else ["--no-sync"]),
        )
        run(argv, name="pg_basebackup", timeout_seconds=240.0, cwd=Path("/"), identity=self._identity(argv))
        return Cluster(data, port=port, durable=self._durable, guarded=self._guarded, settings=self._extra)

    def _create(self) -> None:
        """Run initdb, with one collation everywhere: bytes of UTF-8, as the builtin provider sorts."""
        password = self._password_file(self.data)
        password.write_text(secrets.token_urlsafe(24), encoding="ascii")
        password.chmod(0o600)
        if self._account is not None:
            os.chown(self.data, self._account.uid, self._account.gid)
            os.chown(password, self._account.uid, self._account.gid)
        argv = self._command(
            "initdb",
            f"--pgdata={self.data}",
            f"--username={_SUPERUSER}",
            f"--pwfile={password}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            *([] if self._durable else ["--no-sync"]),
            *self._init,
        )
        run(argv, name="initdb", timeout_seconds=240.0, cwd=Path("/"), identity=self._identity(argv))

    def _password(self) -> str:
        return self._password_file(self.data).read_text(encoding="ascii").strip()

    @staticmethod
    def _password_file(data: Path) -> Path:
        return data.parent / f"{data.name}.password"

    def _socket_folder(self) -> Path:
        """Inside the data folder when the path is short enough for a socket, else a temporary one.

        The temporary one is noted beside the data, so that a server keeps its address over a restart.
        """
        if self._sockets is not None and self._sockets.is_dir():
            return self._sockets
        folder = self.data / "sockets"
        if len(str(folder)) > _SOCKET_FOLDER_LIMIT:
            folder = self._temporary_folder()
        folder.mkdir(exist_ok=True, mode=0o700)
        if self._account is not None:
            os.chown(folder, self._account.uid, self._account.gid)
        return folder

    def _temporary_folder(self) -> Path:
        """The one noted by an earlier start, made again when it is gone; a new one when somebody else has its name."""
        note = self.data.parent / f"{self.data.name}.sockets"
        if note.is_file():
            folder = Path(note.read_text(encoding="utf-8"))
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            owners = {os.getuid()} if self._account is None else {os.getuid(), self._account.uid}
            if stat.S_ISDIR(folder.lstat().st_mode) and folder.lstat().st_uid in owners:
                return folder
        folder = Path(tempfile.mkdtemp(prefix="attributary-pg-"))
        note.write_text(str(folder), encoding="utf-8")
        return folder

    def _command(self, program: str, *arguments: str) -> list[str]:
        return self._install.command(program, *arguments, account=self._account, data=self.data)

    def _identity(self, argv: list[str]) -> tuple[int, int] | None:
        """User and group for `spawn` and `run`; None where setpriv changes them itself."""
        if self._account is None or Path(argv[0]).name == "setpriv":
            return None
        return self._account.uid, self._account.gid

    def _refusal(self) -> str | None:
        """Why the server does not answer yet, or None when it does."""
        try:
            with psycopg.connect(self.dsn, connect_timeout=10):
                return None
        except psycopg.OperationalError as error:
            return str(error).strip()
