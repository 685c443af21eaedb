"""The import of one file: read, map, publish; put aside what cannot be published, and carry on.

Invariant: every row that was read is published (or, in a dry run, could have been), is counted as a page view inside a
visit or not wanted, or is in the rejects file; ``orders == accepted + rejected + internal + unwanted``, where without
grouping every row is an order. ``resume_at`` rows are in the log or put aside, and end with an order: an import that
was broken off goes on behind them without losing one. What is published a second time has the same event id, and counts
once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from attributary.producers.errors import InvalidRecord
from attributary.producers.importer.cells import is_missing
from attributary.producers.importer.columns import cell
from attributary.producers.importer.orders import Order
from attributary.producers.importer.reasons import Reason, Reasons
from attributary.producers.importer.repeats import Repeats
from attributary.producers.importer.row_mapper import NoTouchpoint, NotWanted, RowMapper, RowRefused
from attributary.producers.importer.rows import Row

CHECKPOINT_ROWS = 20_000
"""After so many rows the import waits for all acknowledgements, so that it knows where it could go on."""


class Sink(Protocol):
    """Takes the records: an ``AttributaryProducer``, or one that only checks them."""

    def publish_mapping(self, name: str, record: dict[str, Any]) -> None:
        """Queue one record.

        Raises:
            InvalidRecord: it breaks a rule.
        """

    def flush(self) -> None:
        """Wait until all are in the log."""


@dataclass(slots=True)
class Progress:
    """How far an import is."""

    rows: int = 0  # read, without the ones that were skipped
    orders: int = 0  # what the rows were grouped into; without grouping as many as rows
    accepted: int = 0
    rejected: int = 0
    repeated: int = 0  # rows with the order number of the row above, where nothing is grouped
    corrections: int = 0  # restatements that were published beside their orders
    unwanted: int = 0  # left out by the plan's conditions
    internal: int = 0  # page views inside a visit, which are no touchpoints
    resume_at: int = 0  # rows of the file, the skipped ones among them, that need not be read again


class RejectsFile:
    """Rows that were not imported, one JSON object a line: file, line, column, field, rule, row.

    The file is made with the first of them. Only its owner can read it: a row may hold personal data.

    Args:
        path: where.
        append: keep what is there, because the import goes on; otherwise an old file is removed.
        source: the name of the file that the rows come from.
    """

    def __init__(self, path: Path, *, append: bool = False, source: str = "") -> None:
        self.path = path
        self._source = source
        self._file: Any = None
        if not append:
            path.unlink(missing_ok=True)

    def add(self, row: Row, field: str, rule: str, column: str | None = None) -> None:
        """Write one row, as the file has it, and why it was refused."""
        if self._file is None:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "a", encoding="utf-8")
        line = {
            "file": self._source, "line": row.line, "column": column, "field": field, "rule": rule, "row": row.cells
        }  # fmt: skip
        try:
            text = json.dumps(line, default=str, allow_nan=False)
        except ValueError:  # NaN and the like, which are no JSON
            text = json.dumps(line | {"row": {name: repr(cell) for name, cell in row.cells.items()}})
        self._file.write(text + "\n")

    def flush(self) -> None:
        """Write out what is buffered."""
        if self._file is not None:
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


class FileImport:
    """One import.

    Args:
        mapper: makes records of rows.
        kind: the kind of the records.
        sink: takes them.
        rejects: takes the rows that are refused.
        on_progress: called after every order.
    """

    def __init__(
        self,
        mapper: RowMapper,
        kind: str,
        sink: Sink,
        rejects: RejectsFile,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.progress = Progress()
        self.repeats = Repeats()
        self.reasons = Reasons()
        self.remarks = Reasons()
        self._mapper = mapper
        self._kind = kind
        self._sink = sink
        self._rejects = rejects
        self._on_progress = on_progress
        self.order_column = mapper.order_column
        self.has_header = mapper.has_header
        self.is_done = False  # came to its end or limit
        self.is_cut = False  # ended at the limit
        self._last_order: Any = None

    def run(self, rows: Iterator[Row], *, skip: int = 0, limit: int | None = None) -> Progress:
        """Import rows to the end, or ``limit`` of them; of an order all rows or none.

        Args:
            rows: the rows of the file.
            skip: how many rows to leave out at the beginning; they were imported before.
            limit: how many rows to read at most.

        Raises:
            DeliveryFailed, BufferFull, FlushTimeout: the log did not take records; go on with ``progress.resume_at``.
            FileError: the rest of the file cannot be read.
        """
        progress = self.progress
        progress.resume_at = sum(1 for _ in islice(rows, min(skip, sys.maxsize)))
        checked = 0
        for order in self._mapper.orders(rows):
            if limit is not None and progress.rows + len(order.rows) > limit:
                self.is_cut = True
                break
            self._import(order)
            if self._on_progress is not None:
                self._on_progress(progress)
            if progress.rows - checked >= CHECKPOINT_ROWS:
                self._checkpoint(skip)
                checked = progress.rows
        self._checkpoint(skip)
        self.is_done = True
        return progress

    def _import(self, order: Order) -> None:
        progress = self.progress
        if self.order_column is not None:
            number = cell(order.rows[0].cells, self.order_column)
            progress.repeated += number == self._last_order and not is_missing(number)
            self._last_order = number
        try:
            found = self._mapper.mapped(order)
            self._check_repeat(found.records[0], order)
            if found.refused is not None:
                raise found.refused
            for record in found.records:
                self._sink.publish_mapping(self._kind, record)
            progress.accepted += 1
            for remark in found.remarks:
                self.remarks.add(Reason(remark), order.rows[0].line)
            progress.corrections += len(found.records) - 1
        except NoTouchpoint:
            progress.internal += 1
        except NotWanted:
            progress.unwanted += 1
        except (RowRefused, InvalidRecord) as error:
            self._reject(order, error)
        progress.rows += len(order.rows)
        progress.orders += 1

    def _reject(self, order: Order, error: RowRefused | InvalidRecord) -> None:
        column = error.column if isinstance(error, RowRefused) else self._mapper.column_of(error.field)
        line = (error.line if isinstance(error, RowRefused) else None) or order.rows[0].line
        row = next((row for row in order.rows if row.line == line), order.rows[0])
        self.reasons.add(
            Reason(error.rule, error.field, column), line, self._mapper.shown_cell(row, column, error.field)
        )
        for row in order.rows:
            self._rejects.add(row, error.field, error.rule, column)
        self.progress.rejected += 1

    def _check_repeat(self, record: dict[str, Any], order: Order) -> None:
        """Refuse a row or an order that repeats an id of this file with other content."""
        line = order.rows[0].line
        if order.key is not None:
            first = self.repeats.first_line(order.key, record, line)
            if first is not None:
                rule = f"has the order number of line {first} with other content; sort the file by that column"
                raise RowRefused("(row)", rule, self._mapper.key_column)
        elif self._mapper.names_event_ids:
            first = self.repeats.first_line((record.get("tenant_id"), record["event_id"]), record, line)
            if first is not None:
                raise RowRefused(
                    "event_id",
                    f"repeats the id of line {first} with other content; the first row is the event",
                    self._mapper.column_of("event_id"),
                )

    def _checkpoint(self, skip: int) -> None:
        self._sink.flush()
        self._rejects.flush()
        self.progress.resume_at = skip + self.progress.rows
