"""Whether a connection leaves this machine, and whether others can read or answer it on its way.

Contract: the texts name the variable to set and never a value that may be secret.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import KafkaSettings

_CURE = "docs/how-to/secure.md"
_ENCRYPTED = frozenset({"require", "verify-ca"})


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine. An empty host and a path are a Unix socket."""
    if not host or host.startswith(("/", "@")) or host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def hosts_of(servers: str) -> list[str]:
    """Return the hosts of ``[PROTOCOL://]host[:port],...``."""
    hosts = []
    for each in servers.split(","):
        host = each.strip().rpartition("://")[2]
        hosts.append(host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0])
    return hosts


def kafka_exposure(kafka: KafkaSettings) -> tuple[str, str] | None:
    """Return the variable and what is wrong when events can be read on their way to the brokers; else None."""
    protocol = str(kafka.client_config()["security.protocol"]).upper()
    if protocol.endswith("SSL"):
        return None
    far = [host for host in hosts_of(kafka.bootstrap_servers) if not is_loopback(host)]
    if not far:
        return None
    what = "events and the password" if protocol.startswith("SASL") else "events"
    return (
        "KAFKA_SECURITY_PROTOCOL",
        f"{protocol} to {far[0]}: {what} can be read on the way; see {_CURE}",
    )


def postgres_exposure(parts: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable and what is wrong when rows can be read on their way to Postgres; else None.

    Args:
        parts: of DATABASE_URL, by libpq's names.
    """
    mode = parts.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    hosts = (parts.get("host") or parts.get("hostaddr") or os.environ.get("PGHOST") or "").split(",")
    far = [host for host in hosts if not is_loopback(host)]
    if not far or mode == "verify-full":
        return None
    if mode in _ENCRYPTED:
        return (
            "DATABASE_URL",
            f"sslmode={mode} to {far[0]}: another server may answer; set sslmode=verify-full ({_CURE})",
        )
    return "DATABASE_URL", f"sslmode={mode} to {far[0]}: rows may go unencrypted; set sslmode=verify-full ({_CURE})"
