"""Event tables: one row per touch or conversion of a user, turned into journeys.

Columns ``user``, ``time``, ``channel``, and optionally ``conversion`` (truthy: the row is a conversion) and ``value``
(currency units). A row with a channel is a touch; a row that is both is a touch and a conversion at the same time.

Invariant: the journeys depend on the set of rows, not on their order. Each conversion ends a journey; its touches are
those of the user since the conversion before. Touches after a user's last conversion are a journey without one, which
ends with its last touch and is watched until the latest time in the table.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from attributary.attribution_core.cells import is_missing
from attributary.attribution_core.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.paths import JourneyTable, TableError, amount_micros

_MICROS = 1_000_000
_NO = frozenset({"", "0", "0.0", "false", "f", "no", "n", "none", "null", "nan"})


def read_events(columns: Mapping[str, Iterable[Any]], *, lookback_micros: int | None = None) -> JourneyTable:
    """Encode the columns of an event table.

    Args:
        columns: by name; any mapping of columns. ``time`` is ISO 8601 text (UTC where it names no zone), a date-time,
            or a number of seconds since 1970-01-01 UTC.
        lookback_micros: touches earlier than this before their journey's end do not count; microseconds.

    Raises:
        TableError: when a column is missing or a cell cannot be read; the text names the row.
    """
    for name in ("user", "time", "channel"):
        if name not in columns:
            raise TableError("events: the columns user, time and channel are needed")
    users = [_text(cell) for cell in columns["user"]]
    channels = [_text(cell) for cell in columns["channel"]]
    times = [time_micros(cell, row) for row, cell in enumerate(columns["time"], start=1)]
    flags = _column(columns, "conversion", len(users), _truthy)
    cells = list(columns["value"]) if "value" in columns else [None] * len(users)
    values = [amount_micros(cell, f"row {row}: value") for row, cell in enumerate(cells, start=1)]
    if not len(users) == len(channels) == len(times) == len(flags) == len(values):
        raise TableError("events: all columns must have the same length")
    histories: dict[str, list[tuple[int, bool, str, int]]] = {}
    for row, user in enumerate(users):
        if not user:
            raise TableError(f"row {row + 1}: user must not be empty")
        if not channels[row] and not flags[row]:
            raise TableError(f"row {row + 1}: neither a channel nor a conversion")
        history = histories.setdefault(user, [])
        if channels[row]:
            history.append((times[row], False, channels[row], 0))
        if flags[row]:
            history.append((times[row], True, "", values[row]))
    return _encode(histories, lookback_micros)


def time_micros(cell: Any, row: int) -> int:
    """Return a time in microseconds since 1970-01-01 UTC.

    Raises:
        TableError: when the cell is no time.
    """
    if isinstance(cell, np.datetime64):
        cell = cell.astype("datetime64[us]").astype(datetime)
    if isinstance(cell, str):
        cell = _parsed(cell.strip(), row)
    if isinstance(cell, datetime):
        moment = cell if cell.tzinfo is not None else cell.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * _MICROS + since.microseconds
    try:
        micros = int((Decimal(str(cell)) * _MICROS).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise TableError(f"row {row}: time must be ISO 8601 or seconds since 1970") from error
    if abs(micros) >= 2**62:
        raise TableError(f"row {row}: time is out of range")
    return micros


def _parsed(text: str, row: int) -> Any:
    """Return ISO 8601 text as a date-time, and a number as it is."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if not text:
            raise TableError(f"row {row}: time must not be empty") from None
        return text


def _encode(histories: Mapping[str, list[tuple[int, bool, str, int]]], lookback: int | None) -> JourneyTable:
    journeys: list[list[tuple[int, str, str]]] = []
    ends: list[int] = []
    converted: list[bool] = []
    worth: list[int] = []

    def close(touches: list[tuple[int, str, str]], end: int, value: int | None) -> None:
        journeys.append([touch for touch in touches if lookback is None or end - touch[0] <= lookback])
        ends.append(end)
        converted.append(value is not None)
        worth.append(value or 0)

    for user in sorted(histories):
        touches: list[tuple[int, str, str]] = []
        # At equal times touches come before conversions, and by channel name: a rule that needs no order of rows.
        for when, is_conversion, channel, value in sorted(histories[user]):
            if is_conversion:
                close(touches, when, value)
                touches = []
            else:
                touches.append((when, channel, channel))
        if touches:
            close(touches, touches[-1][0], None)
    latest = max((when for history in histories.values() for when, *_ in history), default=0)
    outcomes = Outcomes.of(converted, worth)
    batch = JourneyBatch.of(journeys, ends)
    return JourneyTable(batch, outcomes, np.where(outcomes.conversions > 0, batch.converted_at, np.int64(latest)))


def _text(cell: Any) -> str:
    return "" if is_missing(cell) else str(cell)


def _truthy(cell: Any) -> bool:
    return _text(cell).strip().lower() not in _NO


def _column(columns: Mapping[str, Iterable[Any]], name: str, rows: int, read: Any) -> list[Any]:
    return [read(cell) for cell in columns[name]] if name in columns else [read(None)] * rows
