"""What a collector is set up with; the command line fills it from the environment (cli/collect_settings.py)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

IpPolicy = Literal["full", "cut", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorConfig:
    """Settings of the collector. Sizes in bytes, times in seconds.

    Attributes:
        prefix: path before all routes, such as ``/x``; empty for none. Some blockers match known words of paths.
        keys_file: file with the hashes of write and secret keys; None: only routes without keys answer.
        ack_seconds: how long a request of a page waits for the log before its records are spooled.
        max_body: largest body with a write key, before and after inflating; ``max_body_secret`` with a secret key.
        max_record: largest JSON text of one record with a write key; ``max_record_secret`` with a secret key.
        max_records: most records in a batch.
        max_concurrency: most requests at once; further ones get 503.
        header_bytes: largest request line and headers together.
        headers_max: most header fields.
        header_seconds: after so long without complete headers a connection gets 408.
        body_seconds: after so long without a complete body.
        idle_seconds: after so long without a request a kept-alive connection is closed.
        max_connections: most open connections; further ones are closed at once.
        trusted_proxies: networks of proxies: their ``X-Forwarded-For`` is believed.
        ip: what is kept of an address on a conversion: all, the network (/24, /48), or nothing.
        honour_dnt: treat ``DNT: 1`` as ``Sec-GPC: 1``.
        country_header: header in which a trusted proxy names the visitor's country; empty for none.
        requests_per_second: allowance of one key; ``requests_per_second_ip`` of one address (IPv6: /64).
        redirect_hosts: hosts to which the click redirect leads without a signature.
        redirect_secret: HMAC key of signed targets; empty: only listed hosts.
        cookie_name: first-party cookie with the anonymous id.
        webhooks_file: file of the webhook sources; None: no webhooks.
        webhooks_unmapped: folder for signed deliveries that could not be recorded; None: they are only counted.
        script_name: name of the page script below the prefix; empty: it is not served.
    """

    prefix: str = ""
    keys_file: Path | None = None
    ack_seconds: float = 2.0
    max_body: int = 1 << 20
    max_body_secret: int = 5 << 20
    max_record: int = 32 << 10
    max_record_secret: int = 256 << 10
    max_records: int = 1_000
    max_concurrency: int = 2_000
    header_bytes: int = 16 << 10
    headers_max: int = 100
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 15.0
    max_connections: int = 10_000
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    ip: IpPolicy = "cut"
    honour_dnt: bool = False
    country_header: str = ""
    requests_per_second: float = 500.0
    requests_per_second_ip: float = 50.0
    redirect_hosts: tuple[str, ...] = ()
    redirect_secret: str = ""
    cookie_name: str = "_atb"
    webhooks_file: Path | None = None
    webhooks_unmapped: Path | None = None
    script_name: str = "attributary.js"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the process lives.

    Attributes:
        spool_folder: where the spool stands; None: none, then 503 while the log is away.
        spool_bytes: most bytes of this process's spool.
        drain_records_per_second: most records a second from the spool to the log.
        drain_seconds: so long requests are served after the signal to stop.
        stop_seconds: so long requests in hand may take after that.
    """

    spool_folder: Path | None = None
    spool_bytes: int = 1 << 30
    drain_records_per_second: float = 2_000.0
    drain_seconds: float = 3.0
    stop_seconds: float = 15.0
