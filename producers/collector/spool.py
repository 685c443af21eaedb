"""The spool: a bounded place on disk for sealed messages that the log does not take now.

Contract:

- ``append`` returns after fsync, for many callers at once (group commit: one fsync costs 2 to 15 ms). It raises
  ``SpoolUnavailable`` when the spool is full or the disk fails; then nothing of the call can be relied on.
- Each process writes below a folder of its own that it holds locked. Folders of dead processes are adopted.
- Segments are drained oldest first (drain.py) and removed only when the log has all of their messages. A crash in
  between sends a segment again: the same bytes, stored once.

Invariant: a segment is removed only when the log has all of its messages. Damage is kept aside in ``quarantine``.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from attributary.producers.collector import metrics
from attributary.producers.collector.crash_points import crash_at
from attributary.producers.collector.intake import SpoolUnavailable
from attributary.producers.collector.spool_file import MAGIC, SUFFIX, frame
from attributary.producers.transport import Message

SEGMENT_BYTES = 4 << 20
_FOLDER = "process-"
_LOCK = "lock"
QUARANTINE = "quarantine"


class _Append(NamedTuple):
    data: bytes
    records: int
    future: asyncio.Future[None]


class DiskSpool:
    """The spool of one process.

    Args:
        folder: shared by the processes of one machine or volume.
        max_bytes: most bytes of this process's segments; beyond, ``append`` refuses.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _turn(folder):
            self.own = folder / f"{_FOLDER}{time.time_ns():020d}-{secrets.token_hex(4)}"
            self.own.mkdir(mode=0o700)
            self._lock = _locked(self.own)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write_all, name="collector-spool", daemon=True)
        self._wake = threading.Condition()
        self._queue: list[_Append] = []
        self._closing = False
        self._rotate = False
        self._active: int | None = None  # file descriptor, the writer's thread's own
        self._active_path: Path | None = None
        self._active_bytes = 0
        self._bytes = 0  # of all segments, those to be written included
        self.is_failing = False

    def start(self) -> None:
        """Begin to write; call it on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return self._bytes

    @property
    def can_take(self) -> bool:
        """Whether the next ``append`` is expected to succeed."""
        return not self.is_failing and self._bytes < self._max_bytes

    async def append(self, messages: Sequence[tuple[str, Message]]) -> None:
        """Return once all (event id, message) pairs are on disk.

        Raises:
            SpoolUnavailable: full, failing or closed.
        """
        assert self._loop is not None  # noqa: S101  # started by the server before its first request
        now = time.time()
        data = b"".join(frame(event_id, message, now) for event_id, message in messages)
        with self._wake:
            if self._closing or self._bytes + len(data) > self._max_bytes:
                metrics.spool_records.labels("refused").inc(len(messages))
                raise SpoolUnavailable("the spool is full or closed")
            self._bytes += len(data)
            future: asyncio.Future[None] = self._loop.create_future()
            self._queue.append(_Append(data, len(messages), future))
            self._wake.notify()
        await future

    def closed_segments(self) -> list[Path]:
        """Return the segments that nobody writes to, oldest first."""
        there = list(self.own.glob(f"*{SUFFIX}"))
        active = self._active_path  # asked after the folder, as it is set before its file is made: see `_open_active`
        return sorted(path for path in there if path != active)

    def rotate(self) -> bool:
        """Ask the writer to close its segment, so that it can be drained; return whether there is one."""
        with self._wake:
            if self._active_path is None:
                return False
            self._rotate = True
            self._wake.notify()
        return True

    def remove(self, segment: Path, *, keep_aside: bool = False) -> None:
        """Remove a segment that the log has; one with damage is kept aside for a person to look at.

        Raises:
            OSError: the disk fails; the segment is drained again.
        """
        size = segment.stat().st_size
        if keep_aside:
            aside = self.folder / QUARANTINE
            aside.mkdir(mode=0o700, exist_ok=True)
            segment.rename(aside / segment.name)
            _sync_folder(aside)
        else:
            segment.unlink()
        _sync_folder(self.own)
        with self._wake:
            self._bytes = max(0, self._bytes - size)

    def adopt(self) -> int:
        """Take over the segments of dead processes; return how many.

        Raises:
            OSError: the disk fails; another try goes on.
        """
        adopted = 0
        with _turn(self.folder):
            for sibling in sorted(self.folder.glob(f"{_FOLDER}*")):
                if sibling == self.own or (lock := _lock_of_dead(sibling)) is None:
                    continue
                try:
                    adopted += self._take_over(sibling)
                finally:
                    os.close(lock)
        return adopted

    def show(self) -> None:
        """Update the gauges."""
        metrics.spool_bytes.set(self._bytes)
        metrics.spool_limit_bytes.set(self._max_bytes)
        oldest = min((path.name for path in self.own.glob(f"*{SUFFIX}")), default=None)
        started = None if oldest is None else int(oldest.partition("-")[0]) / 1e9
        metrics.spool_oldest_seconds.set(0.0 if started is None else max(0.0, time.time() - started))

    def close(self) -> None:
        """Write what waits, then stop; the segments stay for the next process."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError), _turn(self.folder):
            if not any(self.own.glob(f"*{SUFFIX}")):
                (self.own / _LOCK).unlink()
                self.own.rmdir()
        os.close(self._lock)

    def _take_over(self, sibling: Path) -> int:
        moved = 0
        for segment in sorted(sibling.glob(f"*{SUFFIX}")):
            size = segment.stat().st_size
            segment.rename(self.own / segment.name)
            with self._wake:
                self._bytes += size
            moved += 1
            crash_at("collector_adopt_moved")
        _sync_folder(self.own)
        (sibling / _LOCK).unlink()
        sibling.rmdir()
        return moved

    def _write_all(self) -> None:
        while True:
            with self._wake:
                while not (self._queue or self._closing or self._rotate):
                    self._wake.wait()
                batch, self._queue = self._queue, []
                rotate, self._rotate = self._rotate, False
                if self._closing and not batch:
                    break
            if batch:
                self._commit(batch)
            if rotate or self._active_bytes >= SEGMENT_BYTES:
                self._close_active()
        self._close_active()

    def _commit(self, batch: list[_Append]) -> None:
        """Write a batch and fsync it once; tell its callers."""
        data = b"".join(each.data for each in batch)
        failed = False
        try:
            if self._active is None:
                self._open_active()
            assert self._active is not None  # noqa: S101  # opened above
            _write(self._active, data)
            crash_at("collector_spool_written")
            os.fdatasync(self._active)
            self._active_bytes += len(data)
            crash_at("collector_spool_synced")
        except OSError:
            failed = True
            self._give_up_tail()
            with self._wake:
                self._bytes -= len(data)
        self.is_failing = failed
        count = sum(each.records for each in batch)
        metrics.spool_records.labels("refused" if failed else "written").inc(count)
        assert self._loop is not None  # noqa: S101
        with suppress(RuntimeError):  # the loop has ended, nobody waits
            self._loop.call_soon_threadsafe(_tell, [each.future for each in batch], failed)

    def _open_active(self) -> None:
        # Named as active before it exists: the drain would take a new, empty file for a segment that is done, and
        # remove it under the records that are written to it next.
        self._active_path = path = self.own / f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
        descriptor = None
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            _write(descriptor, MAGIC)
            _sync_folder(self.own)
        except OSError:
            if descriptor is not None:
                os.close(descriptor)
                path.unlink(missing_ok=True)
            self._active_path = None
            raise
        self._active, self._active_bytes = descriptor, len(MAGIC)
        with self._wake:
            self._bytes += len(MAGIC)

    def _give_up_tail(self) -> None:
        """Leave a file at its last good byte and write no more to it: after a failed fsync nothing else is known."""
        if self._active is not None:
            with suppress(OSError):
                os.ftruncate(self._active, self._active_bytes)
            self._close_active()

    def _close_active(self) -> None:
        if self._active is not None:
            with suppress(OSError):
                os.close(self._active)
            self._active = self._active_path = None
            self._active_bytes = 0


def _tell(futures: list[asyncio.Future[None]], failed: bool) -> None:
    for future in futures:
        if not future.done():
            if failed:
                future.set_exception(SpoolUnavailable("the disk failed"))
            else:
                future.set_result(None)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the lock under which folders of processes come and go."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _locked(own: Path) -> int:
    descriptor = os.open(own / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _lock_of_dead(sibling: Path) -> int | None:
    """Return the lock of a process's folder, None while the process lives."""
    try:
        return _locked(sibling)
    except BlockingIOError:
        return None
