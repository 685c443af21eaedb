"""The forwarder as a process: settings become a stage.

Invariants: a missing or wrong variable ends the start with exit code 78 and its name; a destination without credentials
is off, says so once and ends with exit code 0.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.adapters.tenant_rules import ConsentDefaults
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import (
    Credentials,
    ga4_credentials,
    load_credentials,
    meta_credentials,
)
from attributary.consumers.destinations.ga4.destination import Ga4Destination, Ga4Options
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions, is_old_version
from attributary.consumers.destinations.property_filter import PropertyFilter
from attributary.consumers.destinations.sender import BatchSender
from attributary.consumers.destinations.settings import (
    ForwardSettings,
    Ga4Settings,
    MetaSettings,
    event_names,
    purposes,
)
from attributary.consumers.destinations.transport import HttpTransport, SystemClock
from attributary.consumers.destinations.validation_probe import ValidationProbe
from attributary.consumers.forwarder.record_reader import KafkaRecordReader
from attributary.consumers.forwarder.stage import ForwarderStage, Route
from attributary.consumers.runtime.run import run_process, run_stage
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings, load
from attributary.consumers.store.deliveries.ledger import PostgresLedger
from attributary.consumers.store.session import StoreSession

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import Destination
    from attributary.consumers.forwarder.record_reader import RecordReader
    from attributary.consumers.store.deliveries.delivery import Ledger

_log = structlog.get_logger()

Name = Literal["meta", "ga4"]
NAMES: tuple[Name, ...] = ("meta", "ga4")
# An answer of GA4 takes 50 ms and holds one person's events: 8 at once would be 160 a second.
_CONCURRENCY = {"meta": 8, "ga4": 32}
# About what one turn of the loop can send: five requests to Meta, up to a thousand to GA4.
_BATCH_SIZE = {"meta": 5_000, "ga4": 1_000}
VARIABLES = {
    "meta": "META_PIXEL_ID and META_ACCESS_TOKEN",
    "ga4": "GA4_MEASUREMENT_ID (or GA4_FIREBASE_APP_ID) and GA4_API_SECRET",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What the environment says about one destination."""

    destination: Destination
    credentials: Credentials
    shared: ForwardSettings
    probe: bool
    properties: PropertyFilter | None


def read_setup(name: Name, environment: str = "development", *, warns: bool = True) -> Setup:
    """Read the settings of one destination.

    Args:
        name: of the destination.
        environment: production or another.
        warns: log what is odd about them.

    Raises:
        ConfigError: a variable is missing or wrong.
    """
    shared = load(ForwardSettings)
    strip = shared.personal_data == "strip"
    if name == "meta":
        meta = load(MetaSettings)
        if warns:
            _warn_about_meta(meta, environment)
        return Setup(
            MetaDestination(
                MetaOptions(
                    meta.base_url.rstrip("/"),
                    meta.api_version,
                    meta.external_id,
                    shared.default_region,
                    event_names("FORWARD_META_EVENT_NAMES", meta.event_names),
                    strip,
                ),
                consent_purposes=purposes(meta.consent),
                events_per_request=shared.events_per_request,
            ),
            load_credentials(name, meta_credentials(meta), shared.credentials_file),
            shared,
            probe=False,
            properties=PropertyFilter.read(meta.properties),
        )
    ga4 = load(Ga4Settings)
    names = event_names("FORWARD_GA4_EVENT_NAMES", ga4.event_names)
    options = Ga4Options(ga4.url, shared.default_region, shared.consent_unknown == "send", names, strip)
    return Setup(
        Ga4Destination(options, consent_purposes=purposes(ga4.consent), events_per_request=shared.events_per_request),
        load_credentials(name, ga4_credentials(ga4), shared.credentials_file),
        shared,
        probe=ga4.probe,
        properties=PropertyFilter.read(ga4.properties),
    )


def _warn_about_meta(meta: MetaSettings, environment: str) -> None:
    if meta.test_event_code and environment == "production":
        _log.error(
            "META_TEST_EVENT_CODE is set in production: events show under Test Events AND count as live; unset it"
        )
    if is_old_version(meta.api_version):
        _log.warning("META_API_VERSION is near its end or past it", version=meta.api_version)


def build_stage(
    setup: Setup,
    ledger: Ledger,
    reader: RecordReader,
    max_poison_share: float = 1.0,
    consent: ConsentDefaults | None = None,
) -> ForwarderStage:
    """Build the stage of a destination on a ledger."""
    shared, clock = setup.shared, SystemClock()
    concurrency = shared.concurrency or _CONCURRENCY[setup.destination.name]
    options = SenderOptions(concurrency=concurrency, attempts=shared.attempts, uncertain=shared.uncertain)
    proxy = shared.proxy.get_secret_value() if shared.proxy else None
    transport = HttpTransport(connections=concurrency, answer_seconds=shared.timeout_seconds, proxy=proxy)
    sender = BatchSender(setup.destination, transport, ledger, options, clock)
    validation_probe = ValidationProbe(setup.destination, sender, ledger, clock) if setup.probe else None
    route = Route(
        setup.destination,
        setup.credentials,
        shared.consent_unknown,
        shared.uncertain,
        shared.batch_size or _BATCH_SIZE[setup.destination.name],
        max_poison_share,
        make_codec(load(RegistrySettings)),
        setup.properties,
        consent,
    )
    return ForwarderStage(route, sender, ledger, clock, validation_probe, reader)


def open_ledger(application_name: str) -> PostgresLedger:
    """Open the ledger that DATABASE_URL names.

    Raises:
        Retry: Postgres does not answer.
        Fatal: a migration is missing.
    """
    return PostgresLedger(_open_session(application_name))


def _open_session(application_name: str) -> StoreSession:
    session = StoreSession(stage_dsn(), application_name)
    with map_errors():
        session.connection()
    return session


def main(name: Name, version: str) -> int:
    """Run the forwarder of one destination until it is asked to stop; returns the exit code."""
    service = f"forwarder-{name}"
    found: list[Setup] = []
    failed = run_process(service, version, lambda process: found.append(read_setup(name, process.environment)))
    if failed:
        return failed
    setup = found[0]
    if not setup.credentials.is_on:
        _log.info("off: no credentials", destination=name, set=VARIABLES[name])
        return 0
    # Full requests are worth waiting for; a linger that the operator set for the process goes first.
    os.environ.setdefault("ATTRIBUTION_LINGER_MS", str(setup.shared.linger_ms))

    def make(process: ProcessSettings) -> ForwarderStage:
        session, reader = _open_session(f"attributary-{service}"), KafkaRecordReader(KafkaSettings.load())
        consent = ConsentDefaults(session)
        return build_stage(setup, PostgresLedger(session), reader, process.max_poison_share, consent)

    return run_stage(service, version, make)
