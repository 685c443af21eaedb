"""A member of a consumer group that joins and is never heard of again, spoken to the broker byte by byte.

librdkafka cannot play it: its clients answer rebalances by themselves. For the broker it is what a coordinator that was
elected twice while it loaded makes of a member: one whose session nobody watches.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

_JOIN_GROUP, _SYNC_GROUP = 11, 14  # https://kafka.apache.org/protocol.html; versions without flexible fields


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _bytes(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


@dataclass
class SilentMember:
    """Stays in the group until the broker removes it; use as a context manager.

    Args:
        bootstrap: host:port of the only broker.
        group: group id.
        topic: what it subscribes to.
        session_ms: after so long without a heartbeat the broker gives it up; milliseconds.
        rebalance_ms: so long it asks a rebalance to wait for it; milliseconds.
    """

    bootstrap: str
    group: str
    topic: str
    session_ms: int
    rebalance_ms: int

    def __enter__(self) -> Self:
        host, _, port = self.bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=120.0)
        with ExitStack() as undo:
            undo.callback(self._socket.close)
            self._join()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _join(self) -> None:
        subscription = struct.pack(">hi", 0, 1) + _string(self.topic) + _bytes(b"")
        join = _string(self.group) + struct.pack(">ii", self.session_ms, self.rebalance_ms)
        join += _string("") + _string("consumer")
        join += struct.pack(">i", 1) + _string("cooperative-sticky") + _bytes(subscription)
        answer = self._ask(_JOIN_GROUP, 2, join)
        error, self.generation = struct.unpack_from(">hi", answer, 4)
        assert error == 0, f"JoinGroup: error {error}"
        at = 10
        names = []
        for _ in ("protocol", "leader", "member"):
            (length,) = struct.unpack_from(">h", answer, at)
            names.append(answer[at + 2 : at + 2 + length].decode())
            at += 2 + length
        assert names[1] == names[2], "the group has other members"
        assignment = struct.pack(">hii", 0, 0, -1)  # it owns nothing
        sync = _string(self.group) + struct.pack(">i", self.generation) + _string(names[2])
        sync += struct.pack(">i", 1) + _string(names[2]) + _bytes(assignment)
        (error,) = struct.unpack_from(">h", self._ask(_SYNC_GROUP, 1, sync), 4)
        assert error == 0, f"SyncGroup: error {error}"

    def _ask(self, api: int, version: int, body: bytes) -> bytes:
        """Send a request and return its answer, after the correlation id."""
        request = struct.pack(">hhi", api, version, 1) + _string("silent") + body
        self._socket.sendall(_bytes(request))
        (size,) = struct.unpack(">i", self._read(4))
        return self._read(size)[4:]

    def _read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            more = self._socket.recv(size - len(read))
            assert more, "the broker closed the connection"
            read += more
        return read
