"""Opening a platform's report: CSV, JSON lines, Avro or Parquet, with lines of title above its header."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from attributary.consumers.spend.mapping import SpendMapping
    from attributary.producers.importer.rows import Format, Row, SourceFile

_PARQUET = (".parquet", ".pq")
_TITLE_LINES = 8  # so many lines above the header are looked through for it


class Report(NamedTuple):
    """The rows of a report.

    Attributes:
        rows: its rows.
        columns: its columns; None: each row names its own.
        zone: time zone that the file names itself.
    """

    rows: Iterator[Row]
    columns: tuple[str, ...] | None
    zone: str | None


@contextmanager
def open_report(file: Path, mapping: SpendMapping, file_format: Format | None) -> Iterator[Report]:
    """Open a report under a mapping.

    Raises:
        PlanError: it lacks a column.
        FileError: it cannot be read.
    """
    if file.suffix.lower() in _PARQUET and file_format is None:
        yield _of_parquet(file)
        return
    with _headed(file, mapping, file_format) as source:
        yield Report(source.rows(), source.columns, source.timezone)


@contextmanager
def _headed(file: Path, mapping: SpendMapping, file_format: Format | None) -> Iterator[SourceFile]:
    """Open a text file at its header: the first line that has the columns."""
    from attributary.consumers.spend.mapping import fitted
    from attributary.producers.importer.plan import PlanError
    from attributary.producers.importer.rows import FileError, SourceFile

    first: Exception | None = None
    for skip in range(mapping.skip_lines, mapping.skip_lines + _TITLE_LINES):
        try:
            source = SourceFile(file, file_format, mapping.delimiter, mapping.encoding, skip)
        except FileError as error:
            if first is not None:
                break  # the end of the file
            raise error from None
        try:
            if source.columns is not None and source.format in {"csv", "tsv"}:
                fitted(mapping, source.columns)
        except PlanError as error:
            first = first or error
            source.close()
            continue
        with source:
            yield source
        return
    raise first or FileError(f"{file.name}: the file has no rows")


def _of_parquet(file: Path) -> Report:
    from attributary.cli.table_files import FileError as TableFileError
    from attributary.cli.table_files import read_columns
    from attributary.producers.importer.rows import FileError, Row

    try:
        columns = read_columns(file).columns
    except TableFileError as error:
        raise FileError(str(error)) from None
    names = tuple(columns)
    rows = (Row(number, dict(zip(names, cells, strict=True)))
            for number, cells in enumerate(zip(*columns.values(), strict=True), 1))  # fmt: skip
    return Report(rows, names, None)
