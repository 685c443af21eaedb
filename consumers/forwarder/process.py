"""The forwarder as a process: settings become a stage.

Invariants: a missing or wrong variable ends the start with exit code 78 and its name; a destination without credentials
is off, says so once and ends with exit code 0.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

import structlog

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.departures import DeparturesCache
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.adapters.tenant_rules import ConsentDefaults
from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.account_fields import TOKEN_EXPIRES
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.catalog import CATALOG, Setup, read_setup
from attributary.consumers.destinations.oauth2.token_files import TokenFiles
from attributary.consumers.destinations.sender import BatchSender
from attributary.consumers.destinations.transport import HttpTransport, SystemClock
from attributary.consumers.destinations.validation_probe import ValidationProbe
from attributary.consumers.erasure.settings import load_hasher
from attributary.consumers.forwarder.erasures import ErasedPeople
from attributary.consumers.forwarder.record_reader import KafkaRecordReader
from attributary.consumers.forwarder.stage import ForwarderStage, Route
from attributary.consumers.runtime.run import run_process, run_stage
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings, load
from attributary.consumers.store.deliveries.ledger import PostgresLedger
from attributary.consumers.store.session import StoreSession

if TYPE_CHECKING:
    from attributary.consumers.destinations.credentials import Credentials
    from attributary.consumers.destinations.destination import Destination
    from attributary.consumers.destinations.transport import Clock
    from attributary.consumers.forwarder.record_reader import RecordReader
    from attributary.consumers.store.deliveries.delivery import Ledger

_log = structlog.get_logger()

_WARN_SECONDS = 60 * 86_400.0
_WARN_TOKEN_SECONDS = 14 * 86_400.0


def build_stage(
    setup: Setup,
    ledger: Ledger,
    reader: RecordReader,
    max_poison_share: float = 1.0,
    consent: ConsentDefaults | None = None,
    erased: ErasedPeople | None = None,
    departed: DeparturesCache | None = None,
) -> ForwarderStage:
    """Build the stage of a destination on a ledger."""
    shared, clock = setup.shared, SystemClock()
    concurrency = shared.concurrency or CATALOG[setup.destination.name].concurrency
    options = SenderOptions(
        concurrency=concurrency,
        attempts=shared.attempts,
        uncertain=shared.uncertain,
        rate_share=shared.rate_percent / 100,
    )
    proxy = shared.proxy.get_secret_value() if shared.proxy else None
    transport = HttpTransport(connections=concurrency, answer_seconds=shared.timeout_seconds, proxy=proxy)
    token_files = TokenFiles(shared.token_dir) if shared.token_dir else None
    sender = BatchSender(setup.destination, transport, ledger, options, clock, token_files)
    validation_probe = ValidationProbe(setup.destination, sender, ledger, clock) if setup.probe else None
    route = Route(
        setup.destination,
        setup.credentials,
        shared.consent_unknown,
        shared.uncertain,
        shared.batch_size or CATALOG[setup.destination.name].batch_size,
        max_poison_share,
        make_codec(load(RegistrySettings)),
        setup.properties,
        consent,
        erased,
        departed,
    )
    return ForwarderStage(route, sender, ledger, clock, validation_probe, reader)


def watch_version(destination: Destination, clock: Clock) -> None:
    """Show how long the destination's API version is promised, and warn when that ends within 60 days."""
    api = destination.api
    if api.ends_not_before is None:
        return
    ends = dt.datetime.combine(api.ends_not_before, dt.time(), dt.UTC).timestamp()

    def left() -> float:
        return ends - clock.now_micros() / 1e6

    metrics.forward_api_left_seconds.labels(destination.name).set_function(left)
    if left() < _WARN_SECONDS:
        _log.warning(
            "the version of the API is promised for few days only: set a newer one",
            destination=destination.name,
            version=api.version,
            promised_until=api.ends_not_before.isoformat(),
        )


def watch_tokens(destination: str, credentials: Credentials, clock: Clock) -> None:
    """Show how long the first token of an account still lives, and warn of each that ends within 14 days."""
    ends: list[float] = []
    for tenant, account in credentials.listed():
        if not (day := account.options.get(TOKEN_EXPIRES)):
            continue
        # Its last day counts as a whole.
        last = dt.date.fromisoformat(day) + dt.timedelta(days=1)
        ends.append(dt.datetime.combine(last, dt.time(), dt.UTC).timestamp())
        if ends[-1] - clock.now_micros() / 1e6 < _WARN_TOKEN_SECONDS:
            _log.warning(
                "the token ends soon: make a new one, set it and its day, and restart the forwarder",
                destination=destination,
                tenant_id=tenant,
                account=account.account_id,
                last_day=day,
            )
    if ends:
        first = min(ends)
        gauge = metrics.forward_token_left_seconds.labels(destination)
        gauge.set_function(lambda: first - clock.now_micros() / 1e6)


def open_ledger(application_name: str) -> PostgresLedger:
    """Open the ledger that DATABASE_URL names.

    Raises:
        Retry: Postgres does not answer.
        Fatal: a migration is missing.
    """
    return PostgresLedger(_open_session(application_name))


def open_erased(application_name: str) -> ErasedPeople:
    """Open the ledger of erasures that DATABASE_URL names; raises as ``open_ledger`` does."""
    return ErasedPeople(_open_session(application_name), load_hasher())


def _open_session(application_name: str) -> StoreSession:
    session = StoreSession(stage_dsn(), application_name)
    with map_errors():
        session.connection()
    return session


def main(name: str, version: str) -> int:
    """Run the forwarder of one destination until it is asked to stop; returns the exit code."""
    service = f"forwarder-{name}"
    found: list[Setup] = []
    failed = run_process(service, version, lambda process: found.append(read_setup(name, process.environment)))
    if failed:
        return failed
    setup = found[0]
    if not setup.credentials.is_on:
        _log.info("off: no credentials", destination=name, set=CATALOG[name].variables)
        return 0
    watch_version(setup.destination, SystemClock())
    watch_tokens(name, setup.credentials, SystemClock())
    # Full requests are worth waiting for; a linger that the operator set for the process goes first.
    os.environ.setdefault("ATTRIBUTION_LINGER_MS", str(setup.shared.linger_ms))

    def make(process: ProcessSettings) -> ForwarderStage:
        session, reader = _open_session(f"attributary-{service}"), KafkaRecordReader(KafkaSettings.load())
        consent = ConsentDefaults(session)
        erased, departed = ErasedPeople(session, load_hasher()), DeparturesCache(session)
        return build_stage(setup, PostgresLedger(session), reader, process.max_poison_share, consent, erased, departed)

    return run_stage(service, version, make)
