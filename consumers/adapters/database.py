"""Where a stage's Postgres is, with the time limits of its statements."""

from __future__ import annotations

from attributary.consumers.runtime.settings import DatabaseSettings, load
from attributary.consumers.store.connection import with_timeouts

from .error_mapping import map_errors


def stage_dsn(*, has_long_statements: bool = False) -> str:
    """Return the address of Postgres for a stage, from the environment.

    Args:
        has_long_statements: training reads whole windows in one statement; only waits for locks are limited then.

    Raises:
        ConfigError: DATABASE_URL is missing or no address.
    """
    settings = load(DatabaseSettings)
    with map_errors():
        return with_timeouts(
            settings.url.get_secret_value(),
            statement_seconds=0 if has_long_statements else settings.statement_seconds,
            lock_seconds=settings.lock_seconds,
        )
