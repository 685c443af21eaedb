"""What a row may be besides a record."""

from __future__ import annotations


class RowRefused(ValueError):
    """The row cannot become a record; ``field`` and ``rule`` hold nothing of the row.

    Attributes:
        field: the field of the record.
        rule: what it must be.
        column: the column of the file, where one is at fault.
        line: where the row begins, where it is not the first of its order.
    """

    def __init__(self, field: str, rule: str, column: str | None = None, line: int | None = None) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule
        self.column = column
        self.line = line


class NoTouchpoint(Exception):  # no error: the row is right, and says that a visit went on
    """The row is a page view inside a visit: the referrer is an own domain, or a payment or sign-in page."""


class NotWanted(Exception):  # no error: the plan leaves such rows out
    """The row does not meet the conditions of the plan."""
