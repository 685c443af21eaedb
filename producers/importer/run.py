"""The import of one file: read, map, publish; put aside what cannot be published, and carry on.

Invariant: every row that was read is published (or, in a dry run, could have been), is counted as a page view inside a
visit, or is in the rejects file; ``rows == accepted + rejected + internal``. ``resume_at`` rows are in the log or
put aside: an import that was broken off goes on behind them without losing one. What is published a second time has the
same event id, and counts once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from attributary.producers.errors import InvalidRecord
from attributary.producers.importer.mapping import NoTouchpoint, RowMapper, RowRefused
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
    accepted: int = 0
    rejected: int = 0
    internal: int = 0  # page views inside a visit, which are no touchpoints
    resume_at: int = 0  # rows of the file, the skipped ones among them, that need not be read again


class RejectsFile:
    """Rows that were not imported, one JSON object a line: line, field, rule, row. Made with the first of them.

    Only its owner can read it: a row may hold personal data.

    Args:
        path: where.
        append: keep what is there, because the import goes on; otherwise an old file is removed.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.path = path
        self._file: Any = None
        if not append:
            path.unlink(missing_ok=True)

    def add(self, row: Row, field: str, rule: str) -> None:
        """Write one row, as the file has it, and why it was refused."""
        if self._file is None:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "a", encoding="utf-8")
        line = {"line": row.line, "field": field, "rule": rule, "row": row.cells}
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
        on_progress: called after every row.
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
        self._seen: dict[int, tuple[int, int]] = {}  # by event id: its first line, and a hash of its content
        self._mapper = mapper
        self._kind = kind
        self._sink = sink
        self._rejects = rejects
        self._on_progress = on_progress

    def run(self, rows: Iterator[Row], *, skip: int = 0, limit: int | None = None) -> Progress:
        """Import rows to the end, or ``limit`` of them.

        Args:
            rows: the rows of the file.
            skip: how many rows to leave out at the beginning; they were imported before.
            limit: how many rows to read at most.

        Raises:
            DeliveryFailed, BufferFull, FlushTimeout: the log did not take records; go on with ``progress.resume_at``.
            FileError: the rest of the file cannot be read.
        """
        progress = self.progress
        progress.resume_at = sum(1 for _ in islice(rows, skip))
        for row in islice(rows, limit):
            self._import(row)
            if self._on_progress is not None:
                self._on_progress(progress)
            if progress.rows % CHECKPOINT_ROWS == 0:
                self._checkpoint(skip)
        self._checkpoint(skip)
        return progress

    def _import(self, row: Row) -> None:
        progress = self.progress
        try:
            record = self._mapper.record(row)
            self._check_repeat(record, row)
            self._sink.publish_mapping(self._kind, record)
            progress.accepted += 1
        except NoTouchpoint:
            progress.internal += 1
        except (RowRefused, InvalidRecord) as error:
            self._rejects.add(row, error.field, error.rule)
            progress.rejected += 1
        progress.rows += 1

    def _check_repeat(self, record: dict[str, Any], row: Row) -> None:
        """Refuse a row that repeats the event id of another one of this file with other content.

        About a hundred bytes of memory for each row with an event id of its own.
        """
        if not self._mapper.names_event_ids:
            return
        content = hash(json.dumps(record, sort_keys=True, default=str))
        key = hash((record.get("tenant_id"), record["event_id"]))
        first_line, known = self._seen.setdefault(key, (row.line, content))
        if known != content:
            raise RowRefused(
                "event_id", f"repeats the id of line {first_line} with other content; the first row is the event"
            )

    def _checkpoint(self, skip: int) -> None:
        self._sink.flush()
        self._rejects.flush()
        self.progress.resume_at = skip + self.progress.rows
