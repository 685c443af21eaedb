"""Points in time as the wire wants them: whole microseconds since 1970-01-01 UTC.

Invariant: no time zone is ever guessed. A datetime without one is refused, because "09:00" is another instant in
Berlin than in Lisbon and a touch would land on the wrong side of its conversion.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

Instant = datetime | int
"""A datetime with a time zone, or int microseconds since 1970-01-01 UTC."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH_DAY = EPOCH.toordinal()
_MICROS_PER_DAY = 86_400_000_000
_MICROS_PER_MINUTE = 60_000_000
_MINUTES = [b"T%02d:%02d:" % divmod(minute, 60) for minute in range(24 * 60)]


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


def rfc3339_bytes(micros: int) -> bytes:
    """Return what ``to_rfc3339`` does as bytes, in a third of the time.

    Raises:
        ValueError, OverflowError: when the instant is outside the years 1 to 9999.
    """
    day, rest = divmod(micros, _MICROS_PER_DAY)
    minute, rest = divmod(rest, _MICROS_PER_MINUTE)
    second, fraction = divmod(rest, 1_000_000)
    if fraction:
        return b"%b%b%02d.%06d+00:00" % (_date(day), _MINUTES[minute], second, fraction)
    return b"%b%b%02d+00:00" % (_date(day), _MINUTES[minute], second)


@lru_cache(maxsize=4_096)
def _date(day: int) -> bytes:
    return date.fromordinal(_EPOCH_DAY + day).isoformat().encode()
