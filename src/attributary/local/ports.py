"""Free TCP ports on the loopback interface.

Contract: a port that nobody listened on a moment ago. Between the answer and the use another program may
take it, so the caller who starts a server checks that it is its own server that answers.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` different free ports; all are held open together, so they cannot collide with each other."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def free_port(preferred: int | None = None) -> int:
    """A free port: `preferred` if nobody listens there, else any."""
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
