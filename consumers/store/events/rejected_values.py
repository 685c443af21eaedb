"""Values that Postgres refuses, and the reason in words that quote no value.

Invariant: a rejection names field and rule. Postgres's own message may quote the value, so none of it is passed on.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import psycopg
from psycopg import errors

# The same transaction would be refused for ever, on any server: not worth another try as it is.
UNSTORABLE = (psycopg.DataError, errors.ProgramLimitExceeded, errors.StatementTooComplex)

_RULES: tuple[tuple[type[Exception], str], ...] = (
    (errors.NumericValueOutOfRange, "must be a number that the database can hold"),
    (errors.StringDataRightTruncation, "must not be longer than the database allows"),
    (errors.CharacterNotInRepertoire, "must not hold a character that the database cannot hold"),
    (errors.UntranslatableCharacter, "must not hold a character that the database cannot hold"),
    (errors.InvalidTextRepresentation, "must have the form of its column"),
    (errors.DatetimeFieldOverflow, "must be a time that the database can hold"),
    (errors.ProgramLimitExceeded, "must not be larger than the database can index or hold"),
    (errors.StatementTooComplex, "must not be nested more deeply than the database allows"),
)
# Columns that are named otherwise than the fields of the records.
_FIELDS = {"identity_key": "user_id or anonymous_id", "campaign": "campaign_name"}
_COLUMN = re.compile(r"^COPY \w+, line \d+, column (\w+)", re.MULTILINE)


class Rejection(NamedTuple):
    """Why a record cannot be stored: the field, where it is known, and the rule."""

    field: str | None
    rule: str


def rejection(error: Exception) -> Rejection:
    """Return what may be said of an error of the kind ``UNSTORABLE``."""
    rule = next((text for kind, text in _RULES if isinstance(error, kind)), None)
    state, column = None, None
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        copied = _COLUMN.search(error.diag.context or "")
        column = error.diag.column_name or (copied and copied[1])
    field = _FIELDS.get(column, column.removesuffix("_us")) if column else None
    return Rejection(field, rule or f"must be something that the database can hold (SQLSTATE {state or 'none'})")
