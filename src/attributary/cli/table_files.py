"""Tables in files: CSV or Parquet, told apart by what they hold, or standard input (`-`).

Invariant: what is wrong with a file is said by its line, the column and the rule; a CSV file is UTF-8 text with commas,
and one that is not is named for what it looks like instead of being read in another way.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attributary.cli.table_mapping import mapped

if TYPE_CHECKING:
    from attributary.attribution_core.tables.experiments import Experiment
    from attributary.attribution_core.tables.paths import JourneyTable
    from attributary.cli.table_mapping import TableMapping

_PARQUET = b"PAR1"
_SUFFIXES = frozenset({".parquet", ".pq"})
_HIDDEN = re.compile(r"[._]").match
_ROWS_AT_ONCE = 65_536
_OTHER = (
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; save the table as CSV"),
)
_SEPARATORS = ";\t|"
_HEAD = 4_096  # bytes that tell UTF-16 from a damaged file


class FileError(ValueError):
    """A file that cannot be read; the text begins with its name."""

    def __init__(self, file: Path, rule: str) -> None:
        super().__init__(f"{'standard input' if _is_stdin(file) else file}: {rule}")


@dataclass(frozen=True, slots=True)
class FileColumns:
    """The columns of a file.

    Attributes:
        columns: cells by the name of the column.
        lines: of each row, the line where it begins; None where a file has no lines.
    """

    columns: dict[str, list[Any]]
    lines: list[int] | None = None


def read_journeys(file: Path, lookback_micros: int | None = None, mapping: TableMapping | None = None) -> JourneyTable:
    """Return the journeys of a file of paths or of events.

    Args:
        file: its path, or `-` for standard input.
        lookback_micros: for events, touches earlier than this before their journey's end do not count.
        mapping: how its columns are named and written; None: as `analyze` names them.

    Raises:
        FileError: it cannot be read.
    """
    from attributary.attribution_core.tables.journey_table import read_table

    if mapping is None and lookback_micros is None and (parts := path_files(file)):
        return _summed(parts)
    found = read_columns(file, mapping)
    with _naming_lines(file, found.lines):
        if mapping is not None:
            found = mapped(found, mapping)
    with _naming_lines(file, found.lines):
        return read_table(found.columns, lookback_micros=lookback_micros)


def path_files(source: Path) -> list[Path]:
    """Return the Parquet files of a folder that is a table of paths, by name; none when it is something else.

    Args:
        source: a folder; parts of names below it that begin with . or _ are no part of a table.
    """
    if not source.is_dir():
        return []
    files = sorted(
        file
        for file in source.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not any(map(_HIDDEN, file.relative_to(source).parts))
    )
    try:
        from pyarrow import ArrowException, parquet

        return files if files and "path" in parquet.read_schema(files[0]).names else []
    except (ImportError, ArrowException, OSError):
        return []  # the reader of whole tables says what is wrong


def _summed(files: Iterable[Path]) -> JourneyTable:
    """Return the table of paths of many files, read some rows at a time: memory grows with the distinct paths."""
    from pyarrow import ArrowException, parquet

    from attributary.attribution_core.tables.cells import TableError, check_once
    from attributary.attribution_core.tables.paths import PathSums

    sums = PathSums()
    for file in files:
        rows = 0
        try:
            with parquet.ParquetFile(file) as opened:
                check_once(opened.schema_arrow.names)
                for part in opened.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                    names = part.schema.names
                    rows += sums.add({name: _readable(part[name]).to_pylist() for name in names})
        except ArrowException as error:
            raise FileError(file, f"no Parquet file ({error})") from error
        except TableError as error:
            row = None if error.row is None else error.row + rows
            raise FileError(file, str(TableError(error.rule, row=row))) from error
    return sums.table()


def read_experiments(file: Path) -> list[Experiment]:
    """Return the experiments of a file.

    Args:
        file: its path, or `-` for standard input.

    Raises:
        FileError: it cannot be read.
    """
    from attributary.attribution_core.tables import experiments

    found = read_columns(file)
    with _naming_lines(file, found.lines):
        return experiments.read_experiments(found.columns)


@contextmanager
def _naming_lines(file: Path, lines: list[int] | None) -> Iterator[None]:
    """Say what is wrong with a row by the line where it begins."""
    from attributary.attribution_core.tables.cells import TableError
    from attributary.attribution_core.tables.experiments import ExperimentError

    try:
        yield
    except (TableError, ExperimentError) as error:
        if error.row is None or lines is None:
            raise FileError(file, str(error)) from error
        raise FileError(file, f"line {lines[error.row - 1]}: {error.rule}") from error


def read_columns(file: Path, mapping: TableMapping | None = None) -> FileColumns:
    """Return the columns of a file, as it names them.

    Args:
        file: its path, or `-` for standard input.
        mapping: says how a text file is separated and encoded.

    Raises:
        FileError: it cannot be read.
    """
    from attributary.attribution_core.tables.cells import TableError

    try:
        parquet_folder = file.suffix.lower() in _SUFFIXES and file.is_dir()
        data = b"" if parquet_folder else sys.stdin.buffer.read() if _is_stdin(file) else file.read_bytes()
        if data.startswith(_PARQUET) or file.suffix.lower() in _SUFFIXES:
            return FileColumns(_parquet(file if parquet_folder else data, mapping))
        return _csv(data, mapping)
    except OSError as error:
        raise FileError(file, error.strerror or str(error)) from error
    except TableError as error:
        raise FileError(file, str(error)) from error


def _is_stdin(file: Path) -> bool:
    return str(file) == "-"


def _csv(data: bytes, mapping: TableMapping | None) -> FileColumns:
    from attributary.attribution_core.tables.cells import TableError, check_once
    from attributary.producers.importer.header import read_above

    text = io.StringIO(_text(data, None if mapping is None else mapping.encoding), newline="")
    delimiter, skip_lines = (None, 0) if mapping is None else (mapping.delimiter, mapping.skip_lines)
    above = read_above(text.readline, delimiter, ",", skip_lines)
    reader = csv.reader(itertools.chain([above.first], text), delimiter=above.delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    first = above.lines + 1
    begin = first
    try:
        names = [name.strip() for name in next(reader, [])]
        begin = first + reader.line_num
        for row in reader:
            if row:
                rows.append(row)
                lines.append(begin)
            begin = first + reader.line_num
    except csv.Error as error:
        raise TableError(f"line {begin}: {error}") from error
    if len(names) == 1 and (other := next((mark for mark in _SEPARATORS if mark in names[0]), None)):
        said = f"the columns look separated by {other!r}; they must be by {above.delimiter!r}"
        raise TableError(f"line {first}: {said}, or named by --delimiter {other!r}")
    check_once(name for name in names if name)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise TableError(f"line {line}: {len(row)} cells, but {len(names)} columns")
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return FileColumns({name: list(column) for name, column in zip(names, cells, strict=True)}, lines)


def _text(data: bytes, encoding: str | None = None) -> str:
    from attributary.attribution_core.tables.cells import TableError
    from attributary.producers.importer.signatures import HEAD_BYTES, binary_kind, encoding_of_mark

    for begin, rule in _OTHER:
        if data.startswith(begin):
            raise TableError(rule)
    if kind := binary_kind(data[:HEAD_BYTES]):
        raise TableError(f"the file is {kind}")
    if encoding is not None:
        return _decoded(data, encoding)
    if encoding_of_mark(data):
        raise TableError("UTF-16 text; save the file as UTF-8, or name its encoding (--encoding utf-16)")
    try:
        data = data.removeprefix(codecs.BOM_UTF8)
        text, wrong = data.decode("utf-8"), data.find(b"\0")
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        if data[wrong] == 0:
            zeros = data[:_HEAD].count(0)
            if zeros * 3 > len(data[:_HEAD]):
                raise TableError("looks like UTF-16 text without a byte order mark; save the file as UTF-8")
            raise TableError(
                f"line {line}: a NUL byte (0x00): the file is binary or damaged; save the table as UTF-8 CSV"
            )
        raise TableError(f"line {line}: no UTF-8 text (byte 0x{data[wrong]:02x}); save the file as UTF-8")
    return text


def _decoded(data: bytes, encoding: str) -> str:
    from attributary.attribution_core.tables.cells import TableError

    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TableError(f"line {data.count(10, 0, error.start) + 1}: no {encoding} text") from None
    except LookupError:
        raise TableError(f"the encoding {encoding} is not known") from None


def _parquet(source: Path | bytes, mapping: TableMapping | None) -> dict[str, list[Any]]:
    from attributary.attribution_core.tables.cells import TableError, check_once

    if mapping is not None and mapping.is_of_text:
        raise TableError("a Parquet file has no delimiter, encoding or lines to skip")
    try:
        from pyarrow import ArrowException, BufferReader, parquet
    except ImportError as error:
        raise TableError("Parquet needs pyarrow: install attributary[parquet]") from error
    try:
        if isinstance(source, Path):
            table = parquet.read_table(source, use_threads=False)
        else:
            # On this thread alone: one of pyarrow's that lets go of our bytes while the interpreter ends aborts the
            # process, after all has been printed (https://github.com/python/cpython/issues/87135).
            table = parquet.ParquetFile(BufferReader(source)).read(use_threads=False)
        check_once(table.column_names)
        return {name: _readable(table[name]).to_pylist() for name in table.column_names}
    except ArrowException as error:
        raise TableError(f"no Parquet file ({error})") from error


def _readable(column: Any) -> Any:
    """Return a column with what Python has no type for cut down: nanoseconds to microseconds, bytes to text."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.cast(pa.large_string())
    return column
