"""The one grammar of times that a person types: in an option of a command, in a parameter of a job.

==============================================  ==========================================================
form                                            meaning
==============================================  ==========================================================
``2026-11-01``                                  the midnight (UTC) that begins the day
``2026-11-01T10:00:00+01:00``, ``...T09:00Z``   a date-time with its offset from UTC; a space may stand for T
``90s``, ``15m``, ``12h``, ``30d``, ``2w``      so long ago: seconds, minutes, hours, days, weeks
``now``, ``today``, ``yesterday``               the present moment, and the midnights (UTC) that begin the days
``beginning``, ``end``                          without a lower bound, without an upper bound
``1790000000000000``                            microseconds since 1970-01-01 UTC
==============================================  ==========================================================

Invariant: a time is between 1970 and 2200, or refused; what is refused is named with the whole grammar. The present
moment arrives as data, so that the same text and moment give the same time again.

Reports count by days of a tenant's time zone (``LocalTime``): there a date, ``today``, ``yesterday``, ``30d`` and
``2w`` are midnights of that zone.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

BEGINNING = 0
END = 7_258_118_400_000_000
"""2200-01-01 UTC, microseconds: later than every event. A later time is a typing error or another unit."""

FORMS = (
    "a date (2026-11-01), a date-time with its offset (2026-11-01T10:00:00+01:00), so long ago (15m, 12h, 30d, 2w), "
    "now, today, yesterday, beginning or end"
)

_DAY = 86_400_000_000
_UNITS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": _DAY, "w": 7 * _DAY}
_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_WHOLE_DAYS = {"d": 1, "w": 7}
_DAYS = {"today": 0, "yesterday": 1}
_DATE = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
)
_MIN_DIGITS = 15  # of microseconds, from 1973 on; a number of fewer digits is in another unit
_SHOWN = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeError(ValueError):
    """A text that is no time; the message quotes it and says what would be one."""


def parse_time(text: str, now: int | None) -> int:
    """Return the microseconds since 1970-01-01 UTC that a text names; `BEGINNING` and `END` for the two bounds.

    Args:
        text: one of the forms above; blanks around it do not count.
        now: the present moment, microseconds UTC; None: there is none, and forms that need it are refused.

    Raises:
        TimeError: it is no time, or one outside of 1970 to 2200.
    """
    written = text.strip()
    if written in {"beginning", "end"}:
        return BEGINNING if written == "beginning" else END
    ago = _AGO.fullmatch(written)
    if ago or written in _DAYS or written == "now":
        if now is None:
            raise TimeError(f"{_quoted(text)} needs a present moment, and there is none here; give a date")
        if ago:
            micros = now - int(ago[1]) * _UNITS[ago[2]]
        else:
            micros = now if written == "now" else (now // _DAY - _DAYS[written]) * _DAY
    else:
        micros = _absolute(text, written)
    if not BEGINNING <= micros <= END:
        raise TimeError(f"{_quoted(text)} must lie between 1970 and 2200")
    return micros


class LocalTime(NamedTuple):
    """A time as it was typed, with days of a time zone that is known later; `parse_local` makes it.

    Attributes:
        text: one of the forms.
        now: the present moment, microseconds UTC.
    """

    text: str
    now: int

    def micros(self, zone: tzinfo) -> int:
        """Return microseconds since 1970-01-01 UTC: a midnight of the zone, for ``12h`` and date-times the moment."""
        ago = _AGO.fullmatch(self.text)
        today = (_EPOCH + timedelta(microseconds=self.now)).astimezone(zone).date()
        if ago and ago[2] in _WHOLE_DAYS:
            day = today - timedelta(days=int(ago[1]) * _WHOLE_DAYS[ago[2]])
        elif self.text in _DAYS:
            day = today - timedelta(days=_DAYS[self.text])
        elif _DATE.fullmatch(self.text):
            day = date.fromisoformat(self.text)
        else:
            return parse_time(self.text, self.now)
        return min(max(midnight(day, zone), BEGINNING), END)


def parse_local(text: str, now: int) -> LocalTime:
    """Return a time of which the days are those of a zone that is known later.

    Args:
        text: one of the forms above; blanks around it do not count.
        now: the present moment, microseconds UTC.

    Raises:
        TimeError: it is no time, or one outside of 1970 to 2200.
    """
    parse_time(text, now)
    return LocalTime(text.strip(), now)


def midnight(day: date, zone: tzinfo) -> int:
    """Return when a day begins in a zone, microseconds UTC; where its clocks leave midnight out, the moment after."""
    return (datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def is_relative(text: str) -> bool:
    """Tell whether a text means another time at another moment: ``30d``, ``now``, ``today``, ``yesterday``."""
    written = text.strip()
    return written in {"now", *_DAYS} or _AGO.fullmatch(written) is not None


def _absolute(text: str, written: str) -> int:
    """Return the microseconds of a number, a date or a date-time."""
    if written.isascii() and written.isdigit() and len(written) > 8:
        if len(written) < _MIN_DIGITS:
            raise TimeError(
                f"{_quoted(text)} looks like seconds or milliseconds; a number must be microseconds since 1970"
            )
        return int(written) if len(written) <= len(str(END)) else END + 1
    found = _DATE_TIME.fullmatch(written)
    if not found and not _DATE.fullmatch(written):
        raise TimeError(f"{_quoted(text)} is no time; it must be {FORMS}")
    try:
        moment = datetime.fromisoformat(_six_digits(written))
    except ValueError:
        raise TimeError(
            f"{_quoted(text)} is no time: there is no such day, hour or offset; it must be {FORMS}"
        ) from None
    if moment.tzinfo is None:
        if found:
            raise TimeError(f"{_quoted(text)} must have an offset from UTC, for example {written}Z or {written}+01:00")
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _six_digits(text: str) -> str:
    """Return a date-time with microseconds at most; finer digits are cut off."""
    return re.sub(r"([.,][0-9]{6})[0-9]+", r"\1", text)


def _quoted(text: str) -> str:
    """Return a text in quotes, printable and short."""
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) + "'"
