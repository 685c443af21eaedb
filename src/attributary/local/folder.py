"""The folder of a local stack: who owns it, which ports it uses, where its logs are.

Contract: at most one process runs a stack in a folder (`lock`, held by the kernel, gone with its owner).
Ports are remembered, so a stack that starts again is found at the same addresses if they are still free.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attributary.local.ports import is_free

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class FolderInUseError(RuntimeError):
    """Another process runs a stack in this folder."""


@dataclass(frozen=True)
class StackFolder:
    """Files of one local stack below `path`."""

    path: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Own the folder for the length of a `with` block.

        Raises:
            FolderInUseError: when somebody else does.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._pid_file.open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUseError(f"a stack runs in {self.path} already (pid {self.owner()})") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            # Left behind by an owner that was killed, it would look as if this stack were up already.
            self.environment_file.unlink(missing_ok=True)
            try:
                yield
            finally:
                self.environment_file.unlink(missing_ok=True)
                file.truncate(0)

    def owner(self) -> int | None:
        """Process id of who runs the stack here, or None."""
        try:
            with self._pid_file.open("r", encoding="ascii") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0) or None
        except FileNotFoundError:
            pass
        return None

    def port(self, name: str, fallback: int) -> int:
        """The port that `name` had last time, if it is free, else `fallback`; remembered either way."""
        file = self.path / "ports.json"
        ports = json.loads(file.read_text(encoding="ascii")) if file.exists() else {}
        if name not in ports or not is_free(ports[name]):
            ports[name] = fallback
            file.write_text(json.dumps(ports, indent=1), encoding="ascii")
        return int(ports[name])

    def ports(self) -> dict[str, int]:
        """The ports that were used last, by name."""
        file = self.path / "ports.json"
        return dict(json.loads(file.read_text(encoding="ascii"))) if file.exists() else {}

    def forget_port(self, name: str) -> None:
        """Take another port for `name` next time."""
        ports = self.ports()
        ports.pop(name, None)
        (self.path / "ports.json").write_text(json.dumps(ports, indent=1), encoding="ascii")

    def log(self, name: str) -> Path:
        """Log file of one process."""
        logs = self.path / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        return logs / f"{name}.log"

    @property
    def environment_file(self) -> Path:
        """Shell file to source, there while the stack is up."""
        return self.path / "env"

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Write the file to source; only its owner may read it, a DSN may hold a password."""
        text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        self.environment_file.touch(mode=0o600)
        self.environment_file.write_text(text, encoding="utf-8")

    @property
    def _pid_file(self) -> Path:
        return self.path / "pid"
