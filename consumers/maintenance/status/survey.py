"""All checks of an installation, side by side: none waits for another, and none for longer than a few seconds.

Contract: ``survey`` returns within ``CHECK_SECONDS`` and a moment, whatever hangs. A check that did not answer in time,
or depends on a service that is away, is reported as not looked at, never as good. Nothing is written anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.registry_settings import RegistrySettings
from attributary.consumers.runtime.endpoints import kafka_exposure, postgres_exposure
from attributary.consumers.runtime.errors import EXIT_CONFIG, AttributaryError, ConfigError
from attributary.consumers.runtime.settings import (
    DatabaseSettings,
    KafkaSettings,
    ProcessSettings,
    ReadySettings,
    load,
    problems,
)
from attributary.consumers.store.connection import DsnError, StoreUnavailable, check_dsn

from .kafka_checks import check_brokers, check_dead_letters, check_registry, check_stages, check_topics
from .ready_checks import PART, check_ready
from .report import Finding, Level, Report, unknown
from .store_checks import (
    Places,
    check_deliveries,
    check_migrations,
    check_models,
    check_moves,
    check_postgres,
    check_results,
    read_places,
)

CHECK_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_PLACES_SECONDS = 2.0  # Kafka alone tells enough of a stage
_KAFKA, _POSTGRES = "kafka", "postgres"
Check = Callable[[], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class _Job:
    """A check, the parts that it tells about, and the services that it cannot do without."""

    parts: tuple[str, ...]
    needs: tuple[str, ...]
    run: Check


def survey(seconds: float = CHECK_SECONDS) -> Report:
    """Look at everything that the environment names.

    Args:
        seconds: how long to wait for the slowest check.
    """
    started = time.monotonic()
    findings, jobs = _jobs()
    answers = _side_by_side(jobs, seconds)
    down = _down(findings) | _down(each for answer in answers if answer for each in answer)
    for job, answer in zip(jobs, answers, strict=True):
        away = [need for need in job.needs if need in down]
        if away:
            findings += [unknown(part, f"{away[0]} is not reached") for part in job.parts]
        elif answer is None:
            is_service = job.parts[:1] in {(_KAFKA,), (_POSTGRES,)}
            late, cure = f"no answer within {seconds:g} s", "is it overloaded, or does a firewall drop packets?"
            findings += [
                Finding(part, Level.BAD, late, "", cure) if is_service else unknown(part, late) for part in job.parts
            ]
        else:
            findings += answer
    order = {part: place for place, part in enumerate(_ORDER)}
    findings.sort(key=lambda finding: order.get(finding.part, len(order)))
    return Report(datetime.now(UTC), time.monotonic() - started, tuple(findings))


_ORDER = (
    _KAFKA, "registry", _POSTGRES, "encryption", "migrations", "topics", "stitcher", "attributor", "auditor",
    "reporter", "spender", "sweeper", "trainer", PART, "results", "dead letters", "models", "deliveries", "moves",
)  # fmt: skip


def _jobs() -> tuple[list[Finding], list[_Job]]:
    """Return what the settings alone tell, and the checks that they allow."""
    findings: list[Finding] = []
    jobs: list[_Job] = []
    kafka = dsn = None
    try:
        kafka = KafkaSettings.load()
    except ConfigError as error:
        findings.append(_wrong_setting(_KAFKA, error))
    try:
        dsn = load(DatabaseSettings).url.get_secret_value()
    except ConfigError as error:
        findings.append(_wrong_setting(_POSTGRES, error))
    try:
        registry = load(RegistrySettings)
        jobs.append(_Job(("registry",), (), lambda: check_registry(registry)))
    except ConfigError as error:
        findings.append(_wrong_setting("registry", error))
    try:
        if urls := load(ReadySettings).by_name():
            jobs.append(_Job((PART,), (), lambda: check_ready(urls)))
    except ConfigError as error:
        findings.append(_wrong_setting(PART, error))
    findings += _exposures(kafka, dsn)
    stages = ("stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "trainer")
    places = _Later()
    if dsn is not None:
        found: str = dsn
        jobs += [
            _Job((_POSTGRES,), (), lambda: check_postgres(found)),
            _Job(("migrations",), (_POSTGRES,), lambda: check_migrations(found)),
            _Job(("results",), (_POSTGRES,), lambda: check_results(found)),
            _Job(("models",), (_POSTGRES,), lambda: check_models(found)),
            _Job(("deliveries",), (_POSTGRES,), lambda: check_deliveries(found)),
            _Job(("moves",), (_POSTGRES,), lambda: check_moves(found)),
            _Job((), (_POSTGRES,), lambda: places.fill(lambda: read_places(found))),
        ]
    else:
        places.fill(lambda: None)
        findings += [unknown(part, "postgres is not reached") for part in ("migrations", "results", "models")]
    if kafka is not None:
        brokers = kafka
        jobs += [
            _Job((_KAFKA,), (), lambda: check_brokers(brokers)),
            _Job(("topics",), (_KAFKA,), lambda: check_topics(brokers)),
            _Job(stages, (_KAFKA,), lambda: check_stages(brokers, places.get())),
            _Job(("dead letters",), (_KAFKA,), lambda: check_dead_letters(brokers)),
        ]
    else:
        findings += [unknown(part, "kafka is not reached") for part in ("topics", *stages, "dead letters")]
    return findings, jobs


def _exposures(kafka: KafkaSettings | None, dsn: str | None) -> Iterator[Finding]:
    """Tell, in production, which connections others can read or answer."""
    if problems(ProcessSettings) or load(ProcessSettings).environment != "production":
        return
    found = [kafka_exposure(kafka)] if kafka else []
    with suppress(DsnError):  # the check of Postgres tells
        found += [postgres_exposure(check_dsn(dsn))] if dsn else []
    for variable, why in filter(None, found):
        yield Finding("encryption", Level.WARNING, f"{variable} does not protect its connection", why, "see there")


class _Later:
    """What one check learns and another waits for."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._places: Places | None = None

    def fill(self, read: Callable[[], Places | None]) -> Sequence[Finding]:
        try:
            self._places = read()
        finally:
            self._there.set()
        return ()

    def get(self) -> Places | None:
        self._there.wait(_PLACES_SECONDS)
        return self._places


def _side_by_side(jobs: Sequence[_Job], seconds: float) -> list[Sequence[Finding] | None]:
    """Run the checks in threads of their own; None for one that has not answered in time."""
    answers: list[Sequence[Finding] | None] = [None] * len(jobs)

    def run(place: int) -> None:
        answers[place] = _answer(jobs[place])

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(jobs))]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    while time.monotonic() < deadline:
        down = _down(each for answer in answers if answer for each in answer)
        # What depends on a service that is away would only be waited for in vain.
        if not any(
            thread.is_alive() and not down.intersection(job.needs) for thread, job in zip(threads, jobs, strict=True)
        ):
            break
        time.sleep(_LOOK_SECONDS)
    return list(answers)


def _down(findings: Iterable[Finding]) -> set[str]:
    return {finding.part for finding in findings if finding.level is Level.BAD}


def _answer(job: _Job) -> Sequence[Finding]:
    try:
        with map_errors():
            return job.run()
    except ConfigError as error:
        return [_wrong_setting(part, error) for part in job.parts]
    except AttributaryError as error:
        cause = error.__cause__
        is_setting = error.exit_code == EXIT_CONFIG or (isinstance(cause, StoreUnavailable) and cause.is_setting)
        text, _, cure = str(error).partition(". ")
        cure = cure or ("correct the setting" if is_setting else "start it, or correct its address")
        if is_setting or job.parts[:1] in {(_KAFKA,), (_POSTGRES,), ("registry",)}:
            return [Finding(part, Level.BAD, text, "", cure) for part in job.parts]
        return [unknown(part, str(error)) for part in job.parts]


def _wrong_setting(part: str, error: ConfigError) -> Finding:
    cure = f"set {error.variable}; see: attributary settings check"
    return Finding(part, Level.BAD, str(error), "a setting is missing or wrong", cure)
