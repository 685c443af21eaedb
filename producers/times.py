"""Points in time as the wire wants them: whole microseconds since 1970-01-01 UTC.

Invariant: no time zone is ever guessed. A datetime without one is refused, because "09:00" is another instant in
Berlin than in Lisbon and a touch would land on the wrong side of its conversion.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

Instant = datetime | int
"""A datetime with a time zone, or int microseconds since 1970-01-01 UTC."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: Instant) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly.

    Args:
        instant: a datetime with a time zone, or an int that already is microseconds.

    Raises:
        ValueError: when the datetime has no time zone.
        TypeError: when it is neither a datetime nor an int.
    """
    if type(instant) is int:
        return instant
    if isinstance(instant, datetime):
        if instant.utcoffset() is None:
            raise ValueError("needs a time zone: use datetime.now(UTC), or .replace(tzinfo=...) for the zone it is in")
        return (instant - EPOCH) // _MICROSECOND
    raise TypeError("must be a datetime with a time zone, or int microseconds since 1970-01-01 UTC")


def to_rfc3339(micros: int) -> str:
    """Return an instant as RFC 3339 text in UTC, for example ``2026-11-24T09:30:00.000001+00:00``.

    Raises:
        OverflowError: when the instant is outside the years 1 to 9999.
    """
    return (EPOCH + timedelta(microseconds=micros)).isoformat()
