"""When the certificates end that the settings name: a metric, so that an alert comes before connections fail.

Invariant: files are looked at when metrics are scraped, so a certificate that was replaced shows its new end without a
restart. A file that cannot be read shows nothing here: what needs it says so.
"""

from __future__ import annotations

import contextlib
import math
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from . import metrics
from .kafka_credential_settings import KafkaCredentialSettings

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_LONG_FORM = 0x80  # of a DER length
_VERSION_TAG, _UTC_TIME = 0xA0, 0x17


def _part(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the DER element at a place begins and ends."""
    length, at = der[at + 1], at + 2
    if length & _LONG_FORM:
        count = length & ~_LONG_FORM
        length, at = int.from_bytes(der[at : at + count]), at + count
    return at, at + length


def ends_at(der: bytes) -> datetime:
    """Return the end of a certificate's validity (RFC 5280, section 4.1: notAfter).

    Raises:
        ValueError: it is no certificate.
    """
    try:
        at, _ = _part(der, _part(der, 0)[0])  # into Certificate, into tbsCertificate
        if der[at] == _VERSION_TAG:
            at = _part(der, at)[1]
        for _ in range(3):  # serialNumber, signature, issuer
            at = _part(der, at)[1]
        at = _part(der, _part(der, at)[0])[1]  # into validity, past notBefore
        start, end = _part(der, at)
        text = der[start:end].decode("ascii")
        if der[at] == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
            text = ("19" if int(text[:2]) >= 50 else "20") + text  # RFC 5280, section 4.1.2.5.1
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def ends_of(path: Path) -> list[datetime]:
    """Return the ends of the certificates of a PEM file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    parts = path.read_text("utf-8").split(_BEGIN)[1:]
    return [ends_at(ssl.PEM_cert_to_DER_cert(_BEGIN + part.split(_END)[0] + _END + "\n")) for part in parts]


def seconds_left(path: Path, choose: Callable[[list[datetime]], datetime]) -> float:
    """Return how long a file's certificate is valid, seconds; not a number: that cannot be read.

    Args:
        path: PEM.
        choose: min for a chain, of which each is needed; max for authorities, of which old ones may stay behind.
    """
    with contextlib.suppress(OSError, ValueError):
        if found := ends_of(path):
            return choose(found).timestamp() - time.time()
    return math.nan


def watch_certificates(used_for: str, files: Mapping[str, str | None]) -> None:
    """Show when certificates end.

    Args:
        used_for: kafka, postgres or token-endpoint: a label.
        files: PEM files by what they hold, ``certificate`` or ``authorities``; None: not set.
    """
    for holds, name in files.items():
        if name and name != "system":
            path, choose = Path(name), max if holds == "authorities" else min
            gauge = metrics.certificate_left_seconds.labels(used_for, holds)
            gauge.set_function(lambda path=path, choose=choose: seconds_left(path, choose))  # type: ignore[misc]


def watch_kafka_certificates(kafka: KafkaCredentialSettings) -> None:
    """Show when the certificates end that the settings of Kafka name."""
    watch_certificates("kafka", {"certificate": kafka.ssl_certificate_location, "authorities": kafka.ssl_ca_location})
    watch_certificates("token-endpoint", {"authorities": kafka.oauth_ca_location})
