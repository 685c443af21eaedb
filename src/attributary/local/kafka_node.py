"""One Kafka node (KRaft broker and controller in one JVM) in a folder of its own.

Contract: a node keeps its ports and its data over `restart`, so clients find it again. Signals go to the
JVM itself: `child.suspend()` makes it a zombie that still holds its connections, `kill()` is `kill -9`.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attributary.local.ports import LOOPBACK
from attributary.local.process import ManagedProcess, ProcessFailedError, run, spawn

if TYPE_CHECKING:
    from collections.abc import Mapping

LOGGING = Path(__file__).with_name("kafka-log4j2.properties")


# The first compiler and the serial collector alone: a broker that has just started does not take a core for its
# optimising compiler while something else is measured or tested beside it. For hours of full load C2 is better.
_QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@dataclass(frozen=True)
class Runtime:
    """What it takes to run Kafka's programs.

    `optimise` lets the JVM compile for long runs at full load; without it a node starts with less CPU. `options` are
    further ones of the JVM.
    """

    java: Path
    jars: Path
    heap_megabytes: int
    optimise: bool = False
    options: tuple[str, ...] = ()

    def command(self, main: str, *arguments: str, heap_megabytes: int | None = None) -> list[str]:
        """Argument list for one of Kafka's main classes."""
        heap = heap_megabytes or self.heap_megabytes
        return [
            str(self.java),
            f"-Xmx{heap}m",
            f"-Xms{min(heap, 128)}m",
            *(() if self.optimise else (*_QUICK_START, *self._archived())),
            *self.options,
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={LOGGING.as_uri()}",
            "-cp",
            f"{self.jars}/*",
            main,
            *arguments,
        ]

    def _archived(self) -> tuple[str, ...]:
        archive = archive_file(self.java, self.jars)
        return (f"-XX:SharedArchiveFile={archive}", "-Xlog:cds*=off") if archive.is_file() else ()


def archive_file(java: Path, jars: Path) -> Path:
    """Return where the archive of Kafka's classes is kept for this Java, made or not (see kafka_archive)."""
    own = java.stat()
    digest = hashlib.sha256(f"{java.resolve()} {own.st_mtime_ns} {own.st_size}".encode()).hexdigest()[:12]
    return jars.with_name(f"{jars.name}-{digest}.jsa")


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one node; `proxied` and `proxy` only when a fault proxy stands in front of it.

    Clients that come through the proxy are told the proxy's port by the broker's metadata, otherwise they
    would walk around it: the node listens on `proxied` and advertises `proxy`.
    """

    broker: int
    controller: int
    proxied: int | None = None
    proxy: int | None = None


@dataclass(frozen=True)
class Listener:
    """One more door of a node, for a security protocol in Kafka's words."""

    protocol: str
    port: int


@dataclass
class KafkaNode:
    """One node; made by `KafkaCluster`. `listeners` stand beside the plain one, by their names."""

    number: int
    ports: Ports
    folder: Path
    runtime: Runtime
    guarded: bool = True
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    _child: ManagedProcess | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{LOOPBACK}:{self.ports.broker}"

    @property
    def child(self) -> ManagedProcess:
        """The JVM."""
        if self._child is None:
            raise RuntimeError(f"Kafka node {self.number} is not running")
        return self._child

    @property
    def running(self) -> bool:
        """Whether the JVM runs."""
        return self._child is not None and self._child.running

    def prepare(self, cluster_id: str, settings: dict[str, str]) -> None:
        """Write the settings, and format the storage when it is new.

        A JVM formats once for each version of Kafka, which takes a second; later nodes get a copy of what it wrote.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # events hold personal data, and Kafka's files are readable by all
        own = {**settings, **self._own_settings()}
        text = "".join(f"{name}={value}\n" for name, value in own.items())
        self._settings_file.write_text(text, encoding="utf-8")
        data = self.folder / "data"
        if (data / "meta.properties").exists():
            return
        formatted = self.runtime.jars.with_name(f"{self.runtime.jars.name}-formatted")
        if formatted.is_dir():
            shutil.copytree(formatted, data, dirs_exist_ok=True)
            write_identity(data, cluster_id, self.number)
            return
        argv = self.runtime.command(
            "kafka.tools.StorageTool",
            *("format", "-t", cluster_id, "-c", str(self._settings_file)),
            heap_megabytes=128,
        )
        run(argv, name=f"format of Kafka node {self.number}", timeout_seconds=120.0, cwd=self.folder)
        _keep(data, formatted)

    def start(self) -> None:
        """Start the JVM; readiness is the cluster's question."""
        if self.running:
            raise ProcessFailedError(f"Kafka node {self.number} runs already")
        self._child = spawn(
            self.runtime.command("kafka.Kafka", str(self._settings_file)),
            name=f"Kafka node {self.number}",
            log=self.folder / "node.log",
            cwd=self.folder,
            guarded=self.guarded,
        )

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Controlled shutdown: leadership moves away first, logs are closed cleanly."""
        if self._child is not None:
            self._child.stop(timeout_seconds)

    def kill(self) -> None:
        """`kill -9`: what the page cache holds survives, nothing else does."""
        self.child.kill()

    def suspend(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        self.child.suspend()

    def resume(self) -> None:
        """SIGCONT."""
        self.child.resume()

    @property
    def _settings_file(self) -> Path:
        return self.folder / "server.properties"

    def _own_settings(self) -> dict[str, str]:
        listeners = {"PLAINTEXT": self.ports.broker, "CONTROLLER": self.ports.controller}
        advertised = {"PLAINTEXT": self.ports.broker}
        if self.ports.proxied is not None and self.ports.proxy is not None:
            listeners["PROXIED"] = self.ports.proxied
            advertised["PROXIED"] = self.ports.proxy
        protocols = dict.fromkeys(listeners, "PLAINTEXT")
        for name, listener in self.listeners.items():
            listeners[name] = advertised[name] = listener.port
            protocols[name] = listener.protocol
        return {
            "node.id": str(self.number),
            "log.dirs": str(self.folder / "data"),
            "listeners": _listeners(listeners),
            "advertised.listeners": _listeners(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:{each}" for name, each in protocols.items()),
        }


def write_identity(data: Path, cluster_id: str, number: int) -> None:
    """Make a copy of formatted storage a node's own: its cluster, its number, and a folder id that no other has."""
    file = data / "meta.properties"
    folder_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=").replace("-", "a")
    own = {"cluster.id": cluster_id, "node.id": str(number), "directory.id": folder_id}
    lines = [line for line in file.read_text("ascii").splitlines() if line.partition("=")[0] not in own]
    file.write_text("".join(f"{line}\n" for line in (*lines, *map("=".join, own.items()))), "ascii")


def _keep(data: Path, formatted: Path) -> None:
    """Copy what the storage tool wrote, for the next node of this Kafka; whole, or not at all."""
    with tempfile.TemporaryDirectory(prefix="format-", dir=formatted.parent) as scratch:
        copied = Path(shutil.copytree(data, Path(scratch) / "data"))
        # Another process may have been quicker; its folder is as good as this one.
        with suppress(OSError):
            copied.rename(formatted)


def _listeners(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ports.items())
