"""A disk of some megabytes that is full when a test says so, for root and for ordinary users.

A tmpfs in a mount namespace (and a user namespace: no privilege is needed) of a process that does nothing else. Who has
the same user reaches it as /proc/PID/root/tmp, so that servers need not run inside. With the process everything goes.
Where namespaces are forbidden, as in most containers, a small /dev/shm serves, because nobody misses it for seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from tests.fixtures.run_notes import note

if TYPE_CHECKING:
    from collections.abc import Iterator

# /tmp of the namespace alone: nothing is mounted over anybody else's.
_MOUNT = 'mount -t tmpfs -o "size=$1,mode=0700" small /tmp && cd /tmp || exit 1'
_ENTER = 'cd "$1" || exit 1'
_ORDERS = """
echo ready
while read -r order; do
    case $order in
        fill) dd if=/dev/zero of=ballast bs=4096 oflag=append conv=notrunc 2>&1 | grep -c 'No space left' ;;
        free) rm -f ballast && echo freed ;;
    esac
done
"""
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a file system, not a name to guess
_MOST_FILLS = 50
_MOST_SHARED_BYTES = 256 * 1024 * 1024


@dataclass
class SmallDisk:
    """A folder on a small file system."""

    path: Path
    _holder: subprocess.Popen[str]

    def fill(self) -> None:
        """Leave no room at all; ENOSPC proves it. What others give back meanwhile goes as well."""
        for _ in range(_MOST_FILLS):
            assert self._order("fill") == "1", "the disk did not become full"
            if self.free_bytes() == 0:
                return
        raise AssertionError("somebody keeps making room")

    def free(self) -> None:
        """Give back what `fill` took."""
        assert self._order("free") == "freed"

    def free_bytes(self) -> int:
        """Room that is left."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def _order(self, order: str) -> str:
        write, read = _pipes(self._holder)
        write.write(f"{order}\n")
        write.flush()
        return read.readline().strip()


@contextmanager
def small_disk(megabytes: int, identity: tuple[int, int] | None = None) -> Iterator[SmallDisk]:
    """A disk for the length of a `with` block; skips the test, loudly, where this machine allows none.

    Args:
        megabytes: its size.
        identity: numeric user and group who will use it; ours when None.
    """
    namespaced = _start([*_NAMESPACE, "sh", "-c", _MOUNT + _ORDERS, "small-disk", f"{megabytes}m"], identity)
    if namespaced is not None:
        with namespaced:
            try:
                yield SmallDisk(Path("/proc", str(namespaced.pid), "root", "tmp"), namespaced)
            finally:
                namespaced.kill()
        return
    folder = _shared_memory(identity)
    holder = (
        _start(["sh", "-c", f'cd "$1" || exit 1{_ORDERS}', "small-disk", str(folder)], identity) if folder else None
    )
    if folder is None or holder is None:
        reason = "neither a namespace of one's own nor a small /dev/shm"
        note("no small disk", reason)
        pytest.skip(f"no small disk on this machine: {reason}")
    with holder:
        try:
            yield SmallDisk(folder, holder)
        finally:
            holder.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _start(argv: list[str], identity: tuple[int, int] | None) -> subprocess.Popen[str] | None:
    try:
        holder = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
            user=identity[0] if identity else None,
            group=identity[1] if identity else None,
            extra_groups=[] if identity else None,
        )
    except OSError:
        return None
    if _pipes(holder)[1].readline() == "ready\n":
        return holder
    with holder:
        holder.kill()
    return None


def _pipes(holder: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert holder.stdin is not None
    assert holder.stdout is not None
    return holder.stdin, holder.stdout


def _shared_memory(identity: tuple[int, int] | None) -> Path | None:
    """A folder in /dev/shm when that is a small file system of its own."""
    if not _SHARED_MEMORY.is_mount() or not os.access(_SHARED_MEMORY, os.W_OK):
        return None
    found = os.statvfs(_SHARED_MEMORY)
    if found.f_blocks * found.f_frsize > _MOST_SHARED_BYTES:
        return None
    folder = Path(tempfile.mkdtemp(prefix="attributary-small-", dir=_SHARED_MEMORY))
    if identity:
        os.chown(folder, *identity)
    return folder
