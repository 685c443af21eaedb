"""Free TCP ports on the loopback interface.

Contract: a port that nobody listens on, and that no other process got from here while the one that asked lives. It
lies below the range from which the system takes ports for outgoing connections: none of those takes it while its
server starts or is started again, and a client that asks too early never connects to itself. A program of somebody
else may still take it, so the caller who starts a server checks that it is its own server that answers.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

LOOPBACK = "127.0.0.1"
# Linux takes 32768 to 60999 for outgoing connections, macOS from 49152; well-known servers are mostly below.
_FIRST, _LAST = 15_000, 32_000
_TRIES = 2_000


def free_ports(count: int) -> list[int]:
    """Return so many different free ports; each is promised to this process until it ends."""
    return [_promised() for _ in range(count)]


def free_port(preferred: int | None = None) -> int:
    """Return a free port: `preferred` if nobody listens there, else any."""
    if preferred is not None and is_free(preferred):
        return preferred
    return free_ports(1)[0]


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _promised() -> int:
    """Take a port; a UDP socket under its number tells other processes so, and TCP stays free for the server."""
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        promise = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with suppress(OSError):
            promise.bind((LOOPBACK, port))
            if is_free(port):
                promise.detach()  # stays open until this process ends
                return port
        promise.close()
    with socket.socket() as probe:  # a machine with other rules: any port that is free now
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
