"""Event tables: one row per touch or conversion of a user, turned into journeys.

Columns ``user``, ``time``, ``channel``, and optionally ``conversion`` (truthy: the row is a conversion), ``value``
(currency units) and ``event_id``. A row with a channel is a touch; a row that is both is a touch and a conversion at
the same time.

Invariant: with ``event_id`` the journeys depend on the set of rows, as in the pipeline. Without, the order of rows
decides among those of one user at equal times, and nowhere else; names of channels never decide. At equal times touches
come before conversions. Each conversion ends a journey; its touches are those of the user since the conversion before.
Touches after a user's last conversion are a journey without one, which ends with its last touch and is watched until
the latest time in the table.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from attributary.attribution_core.cells import is_missing
from attributary.attribution_core.journeys import JourneyBatch, JourneyError, Outcomes
from attributary.attribution_core.paths import JourneyTable, TableError, amount_micros

_MICROS = 1_000_000
_Event = tuple[int, bool, str, str, int]  # time, whether a conversion, event id or row, channel, value in micros
_NO = frozenset({"", "0", "0.0", "false", "f", "no", "n", "none", "null", "nan"})


def read_events(columns: Mapping[str, Iterable[Any]], *, lookback_micros: int | None = None) -> JourneyTable:
    """Encode the columns of an event table.

    Args:
        columns: by name; any mapping of columns. ``time`` is ISO 8601 text (UTC where it names no zone), a date-time,
            or a number of seconds since 1970-01-01 UTC. ``event_id`` is compared as text.
        lookback_micros: touches earlier than this before their journey's end do not count; microseconds.

    Raises:
        TableError: when a column is missing or a cell cannot be read, the text names the row; or when all values
            together are more than 64 bits hold.
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
    places = _places(columns, len(users))
    if not len(users) == len(channels) == len(times) == len(flags) == len(values) == len(places):
        raise TableError("events: all columns must have the same length")
    histories: dict[str, list[_Event]] = {}
    for row, user in enumerate(users):
        if not user:
            raise TableError(f"row {row + 1}: user must not be empty")
        if not channels[row] and not flags[row]:
            raise TableError(f"row {row + 1}: neither a channel nor a conversion")
        history = histories.setdefault(user, [])
        if channels[row]:
            history.append((times[row], False, places[row], channels[row], 0))
        if flags[row]:
            history.append((times[row], True, places[row], "", values[row]))
    return _encode(histories, lookback_micros)


def touches_at_equal_times(batch: JourneyBatch) -> int:
    """Return how many touches are at the very time of one of another channel in their journey: not time orders them."""
    if batch.channels.size == 0:
        return 0
    is_first = np.ones(batch.channels.size, dtype=np.bool_)
    is_first[1:] = (np.diff(batch.times) != 0) | (np.diff(batch.journey_of_touch) != 0)
    starts = np.flatnonzero(is_first)
    mixed = np.minimum.reduceat(batch.channels, starts) != np.maximum.reduceat(batch.channels, starts)
    return int(np.diff(np.append(starts, batch.channels.size))[mixed].sum())


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


def _encode(histories: Mapping[str, list[_Event]], lookback: int | None) -> JourneyTable:
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
        for when, is_conversion, place, channel, value in sorted(histories[user]):
            if is_conversion:
                close(touches, when, value)
                touches = []
            else:
                touches.append((when, place, channel))
        if touches:
            close(touches, touches[-1][0], None)
    latest = max((when for history in histories.values() for when, *_ in history), default=0)
    try:
        outcomes = Outcomes.of(converted, worth)
    except JourneyError as error:
        raise TableError(f"events: {error}") from error
    batch = JourneyBatch.of(journeys, ends)
    return JourneyTable(batch, outcomes, np.where(outcomes.conversions > 0, batch.converted_at, np.int64(latest)))


def _text(cell: Any) -> str:
    return "" if is_missing(cell) else str(cell)


def _truthy(cell: Any) -> bool:
    return _text(cell).strip().lower() not in _NO


def _places(columns: Mapping[str, Iterable[Any]], rows: int) -> list[str]:
    """Return what orders the rows at equal times: their event id, or else as they stand."""
    if "event_id" not in columns:
        return [f"{row:012d}" for row in range(rows)]
    places = [_text(cell) for cell in columns["event_id"]]
    if "" in places:
        raise TableError(f"row {places.index('') + 1}: event_id must not be empty")
    return places


def _column(columns: Mapping[str, Iterable[Any]], name: str, rows: int, read: Any) -> list[Any]:
    return [read(cell) for cell in columns[name]] if name in columns else [read(None)] * rows
