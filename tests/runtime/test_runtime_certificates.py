"""The metric of certificates tells when the files end that the settings name, also after they were replaced."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.certificates import ends_at, ends_of, watch_kafka_certificates
from attributary.consumers.runtime.settings import KafkaSettings, load

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(end: dt.datetime, name: str = "stitcher") -> bytes:
    """A certificate in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(1999, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(end)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def left(used_for: str, holds: str) -> float:
    """Seconds that the metric shows."""
    [gauge] = metrics.certificate_left_seconds.labels(used_for, holds).collect()
    return gauge.samples[0].value


@pytest.mark.parametrize("years", [-10, 0, 20, 40])
def test_ends_are_read_in_both_forms_of_a_time(tmp_path: Path, years: int) -> None:
    end = NOW.replace(day=1, year=NOW.year + years)  # from 2050 on the form is another one
    file = tmp_path / "certificate.pem"
    file.write_bytes(b"text before\n" + certificate(end) + certificate(end + dt.timedelta(days=1), "x" * 60))
    assert ends_of(file) == [end, end + dt.timedelta(days=1)]


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82", bytes(40), b"\x30\x03\x30\x01\xa0"])
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # also of a time that is none
        ends_at(der)


def test_kafka_s_files_are_looked_at_whenever_metrics_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, authorities = tmp_path / "own.pem", tmp_path / "ca.pem"
    own.write_bytes(certificate(NOW + dt.timedelta(days=20)) + certificate(NOW + dt.timedelta(days=10)))
    authorities.write_bytes(certificate(NOW - dt.timedelta(days=1)) + certificate(NOW + dt.timedelta(days=400)))
    for name, value in {
        "KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_LOCATION": str(own),
        "KAFKA_SSL_KEY_LOCATION": str(own), "KAFKA_SSL_CA_LOCATION": str(authorities),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    watch_kafka_certificates(load(KafkaSettings))
    assert left("kafka", "certificate") == pytest.approx(10 * 86_400, abs=3_600)
    assert left("kafka", "authorities") == pytest.approx(400 * 86_400, abs=3_600)
    own.write_bytes(certificate(NOW + dt.timedelta(days=90)))
    assert left("kafka", "certificate") == pytest.approx(90 * 86_400, abs=3_600)
    own.unlink()
    assert math.isnan(left("kafka", "certificate"))


def test_the_files_of_the_address_of_postgres_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "root.pem"
    file.write_bytes(certificate(NOW - dt.timedelta(days=2)))
    monkeypatch.setenv("DATABASE_URL", f"postgresql://a@h/d?sslmode=verify-full&sslrootcert={file}")
    stage_dsn()
    assert left("postgres", "authorities") == pytest.approx(-2 * 86_400, abs=3_600)
