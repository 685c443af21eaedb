"""Where a stage's Postgres is, with the time limits of its statements."""

from __future__ import annotations

import structlog

from attributary.consumers.runtime.certificates import watch_certificates
from attributary.consumers.runtime.endpoints import postgres_exposure
from attributary.consumers.runtime.settings import DatabaseSettings, ProcessSettings, load
from attributary.consumers.store.connection import check_dsn, with_timeouts

from .error_mapping import map_errors

_log = structlog.get_logger()


def stage_dsn(*, has_long_statements: bool = False) -> str:
    """Return the address of Postgres for a stage, from the environment.

    Args:
        has_long_statements: training reads whole windows in one statement; only waits for locks are limited then.

    Raises:
        ConfigError: DATABASE_URL is missing or no address.
    """
    settings = load(DatabaseSettings)
    with map_errors():
        parts = check_dsn(settings.url.get_secret_value())
        watch_certificates("postgres", {"certificate": parts.get("sslcert"), "authorities": parts.get("sslrootcert")})
        if load(ProcessSettings).environment == "production":
            exposed = postgres_exposure(parts)
            if exposed is not None:
                _log.warning("a connection is not protected", variable=exposed[0], why=exposed[1])
        return with_timeouts(
            settings.url.get_secret_value(),
            statement_seconds=0 if has_long_statements else settings.statement_seconds,
            lock_seconds=settings.lock_seconds,
        )
