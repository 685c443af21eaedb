"""Rows of a file, one at a time: CSV, JSON lines, Avro containers.

Invariant: memory does not grow with the file, nor with what a packed file unpacks to; time is linear in it. A line that
is no row comes out as a row with a ``fault``, and reading goes on behind it; only an Avro block that cannot be decoded,
and a row past the limits below, end the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Literal, NamedTuple, Self, cast

from .avro_container import AvroContainer, AvroError
from .header import delimiter_of, read_above
from .signatures import AVRO, HEAD_BYTES, binary_kind, encoding_of_mark, looks_binary, other_text

Format = Literal["csv", "tsv", "jsonl", "avro"]

FORMATS: Mapping[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".avro": "avro",
}  # fmt: skip
_WORKBOOK = "save the table as CSV in UTF-8"
_HINTS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers", ".pdf"), _WORKBOOK),
    ".json": "write one object a line and name it .jsonl (jq -c '.[]' takes an array apart)",
    **dict.fromkeys(
        (".parquet", ".pq", ".orc"), "write it as CSV, JSON lines or Avro; Parquet is read by analyze only"
    ),
    **dict.fromkeys((".zip", ".zst", ".bz2", ".xz", ".7z"), "unpack it first; only .gz is read as it is"),
}
MOST_CHARACTERS = 1 << 20
"""Longest cell of CSV and longest line of JSON; a longer one is refused, not read into memory by parts."""

_MAX_ROW_CHARACTERS = 8 << 20  # of a row of CSV, all its lines
_MAX_SKIPPED_CHARACTERS = 64 << 20  # of a line of JSON that is too long to be read: behind that the file ends
_MAX_COLUMNS = 2_000
_MAX_LINES_ABOVE = 1_000  # empty lines above the header
_MAX_EMPTY_LINES = 2_000_000  # one behind the other; a sheet of Excel has 1,048,576 lines
_SHOWN = 50  # characters of a name in a message


class Row(NamedTuple):
    """One row of a file."""

    line: int  # where it begins, from 1; in Avro the number of the record
    cells: Mapping[str, Any]  # by column, as the file gives them
    fault: str | None = None  # why it is no row; then the cells hold what could be read


class FileError(ValueError):
    """The file as a whole cannot be imported; the text says why."""


def format_of(path: Path) -> Format:
    """Return the format of a file by its name; ``.gz`` behind it is looked through.

    Raises:
        FileError: the name says nothing.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in FORMATS:
        return FORMATS[suffixes[-1]]
    hint = _HINTS.get(suffixes[-1] if suffixes else "", "name the format (--format)")
    raise FileError(f"{path.name}: the ending says no format; expected one of {', '.join(FORMATS)}: {hint}")


class SourceFile:
    """A file that is being imported.

    Args:
        path: the file; CSV and JSON lines may be compressed by gzip.
        file_format: its format; by its name when not given.
        delimiter: between the cells of CSV: a character, ``tab``, or ``auto``; see ``header``.
        skip_lines: how many lines above the header to leave out.
        encoding: of CSV and JSON lines; by its byte order mark, else UTF-8, when not given.

    Raises:
        FileError: it cannot be opened, or is not of its format at all.
    """

    def __init__(
        self,
        path: Path,
        file_format: Format | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        skip_lines: int = 0,
    ) -> None:
        self.format = file_format or format_of(path)
        self._name = path.name
        self._encoding = encoding
        self._skip_lines = skip_lines
        self.timezone: str | None = None
        """The zone of times without one, when the file names it above its header."""
        try:
            self._delimiter = delimiter_of(delimiter)
        except ValueError as error:
            raise FileError(str(error)) from None
        try:
            self.size = path.stat().st_size
            self._raw: BinaryIO = path.open("rb")
        except OSError as error:
            raise FileError(f"{path.name}: {error.strerror}") from None
        unpacked = gzip.GzipFile(fileobj=self._raw) if path.suffix.lower() == ".gz" else self._raw
        self._bytes = cast("IO[bytes]", unpacked)
        self._text: IO[str] | None = None
        self.columns: tuple[str, ...] | None = None
        """The columns, when the file names them all at its start."""
        try:
            self._rows = self._open()
        except FileError:
            self.close()
            raise

    def position(self) -> int:
        """Return how many bytes of the file have been read."""
        return self._raw.tell()

    def rows(self) -> Iterator[Row]:
        """Return the rows that are left.

        Raises:
            FileError: the rest cannot be read.
        """
        return self._rows

    def close(self) -> None:
        """Close the file."""
        if self._text is not None:
            self._text.close()
        self._bytes.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Iterator[Row]:
        head = self._head()
        if self.format == "avro":
            if not head.startswith(AVRO):
                raise FileError(f"{self._name}: the file is {binary_kind(head) or 'not an Avro container file'}")
            return self._open_avro()
        marked = encoding_of_mark(head)
        if kind := binary_kind(head) or other_text(head, self.format):
            raise FileError(f"{self._name}: the file is {kind}")
        if self._encoding is None:
            if marked is None and (kind := looks_binary(head)):
                raise FileError(f"{self._name}: the file is {kind} (--encoding)")
            self._encoding = marked or "utf-8-sig"
        # Bytes that the encoding does not know become half surrogate pairs, which the rules refuse row by row.
        try:
            text = io.TextIOWrapper(self._bytes, encoding=self._encoding, errors="surrogateescape", newline="")
        except (LookupError, ValueError):
            raise FileError(f"encoding {self._encoding}: is not known") from None
        self._text = text
        return _json_rows(text) if self.format == "jsonl" else self._open_csv(text)

    def _head(self) -> bytes:
        """Return the first bytes without reading on."""
        peeked = cast("io.BufferedReader", self._bytes)
        try:
            return peeked.peek(HEAD_BYTES)[:HEAD_BYTES]
        except (EOFError, OSError, zlib.error) as error:
            raise FileError(f"{self._name}: line 1: the rest cannot be read: {_reason(error)}") from None

    def _open_csv(self, text: IO[str]) -> Iterator[Row]:
        csv.field_size_limit(MOST_CHARACTERS)
        name = self._name
        lines = _BoundedLines(text, name)
        try:
            usual = "\t" if self.format == "tsv" else ","
            above = read_above(lines.next_line, self._delimiter, usual, self._skip_lines)
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            raise FileError(f"{name}: line 1: the rest cannot be read: {_reason(error)}") from None
        self.timezone = above.timezone
        lines.push(above.first)
        reader = csv.reader(lines, delimiter=above.delimiter, strict=True)
        header: list[str] = []
        try:
            while not any(header):  # empty lines above the header, as Excel leaves them
                lines.begin_row()
                if lines.number > _MAX_LINES_ABOVE:
                    raise FileError(f"{name}: the first {_MAX_LINES_ABOVE} lines are empty: no header of columns")
                header = [column.strip() for column in next(reader)]
        except StopIteration:
            raise FileError(f"{name}: the file is empty: its first line must name the columns") from None
        except (csv.Error, OSError, EOFError, zlib.error, UnicodeError) as error:
            raise FileError(f"{name}: the first line is no header of columns: {_reason(error)}") from None
        if len(header) > _MAX_COLUMNS:
            raise FileError(f"{name}: the header has {len(header)} columns, {_MAX_COLUMNS} at most are read")
        while not header[-1]:  # a trailing separator names no column
            header.pop()
        twice = sorted(column for column, count in Counter(filter(None, header)).items() if count > 1)
        if twice:
            raise FileError(f"{name}: two columns have the name {twice[0][:_SHOWN]}")
        if any("\0" in column for column in header):
            raise FileError(f"{name}: the file is binary, or of another encoding (--encoding)")
        self.columns = tuple(filter(None, header))
        return _csv_rows(reader, header, lines, above.lines)

    def _open_avro(self) -> Iterator[Row]:
        try:
            container = AvroContainer(self._bytes)
        except AvroError as error:
            raise FileError(f"{self._name}: {error}") from None
        if len(container.columns) > _MAX_COLUMNS:
            raise FileError(
                f"{self._name}: the schema has {len(container.columns)} fields, {_MAX_COLUMNS} at most are read"
            )
        self.columns = container.columns
        return _avro_rows(container, self._name)


def _csv_rows(reader: Any, header: list[str], lines: _BoundedLines, above: int) -> Iterator[Row]:
    columns, empty = len(header), 0
    while True:
        line = above + reader.line_num + 1
        lines.begin_row()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            last = above + reader.line_num
            upto = f" (up to line {last})" if last > line else ""
            yield Row(line, {}, f"is no row of CSV: {error}{upto}")
            continue
        except (EOFError, OSError, zlib.error, UnicodeError) as error:
            raise FileError(f"line {line}: the rest cannot be read: {_reason(error)}") from None
        if cells is None:
            return
        if not any(map(str.strip, cells)):
            empty = _next_empty(empty, line)
            continue
        empty = 0
        while len(cells) > columns and not cells[-1].strip():  # Excel's empty cells behind the last column
            cells.pop()
        if len(cells) > _MAX_COLUMNS:
            yield Row(line, {}, f"has {len(cells)} columns, the header has {columns}")
            continue
        missing = [cell for column, cell in zip(header, cells, strict=False) if not column and cell.strip()]
        if len(cells) == columns and not missing:
            yield Row(line, {column: cell for column, cell in zip(header, cells, strict=True) if column})
            continue
        named = {column: cell for column, cell in zip(header, cells, strict=False) if column}
        more = {f"(column {number})": cell for number, cell in enumerate(cells[columns:], columns + 1)}
        fault = f"has {len(cells)} columns, the header has {columns}"
        yield Row(line, named | more, "has a value in a column without a name" if missing else fault)


def _next_empty(empty: int, line: int) -> int:
    if empty >= _MAX_EMPTY_LINES:
        raise FileError(f"line {line}: {_MAX_EMPTY_LINES} empty lines are above it; cut them off the file")
    return empty + 1


class _BoundedLines:
    """The lines of a file, as the reader of CSV takes them: a line or a quoted row without an end fills no memory."""

    def __init__(self, text: IO[str], name: str) -> None:
        self._text, self._name = text, name
        self._left = _MAX_ROW_CHARACTERS
        self.number = 0
        self._pushed = ""

    def push(self, line: str) -> None:
        """Give a line back, to be read again."""
        self._pushed = line

    def next_line(self) -> str:
        """Return the next line, empty at the end of the file; each counts as a row."""
        self.begin_row()
        return next(self, "")

    def begin_row(self) -> None:
        """Count the characters of the row that begins now."""
        self._left = _MAX_ROW_CHARACTERS

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._pushed:
            written, self._pushed = self._pushed, ""
            return written
        written = self._text.readline(self._left + 1)
        if not written:
            raise StopIteration
        self.number += 1
        self._left -= len(written)
        if self._left < 0:
            raise FileError(
                f"{self._name}: line {self.number} is longer than {_MAX_ROW_CHARACTERS} characters, or belongs to a "
                "row that is; has the file one row a line, and does each quotation mark close?"
            )
        return written


def _reason(error: Exception) -> str:
    """Say what is wrong without a value of the file."""
    return f"it is not {error.encoding} from there on" if isinstance(error, UnicodeDecodeError) else str(error)


def _json_rows(text: IO[str]) -> Iterator[Row]:
    line = empty = 0
    while True:
        line += 1
        try:
            written = text.readline(MOST_CHARACTERS + 1)
        except (EOFError, OSError, zlib.error, UnicodeError) as error:
            raise FileError(f"line {line}: the rest cannot be read: {_reason(error)}") from None
        if not written:
            return
        if len(written) > MOST_CHARACTERS:
            _skip_line(text, written, line)
            yield Row(line, {}, f"is longer than {MOST_CHARACTERS} characters")
        elif written.strip():
            empty = 0
            yield _json_row(line, written)
        else:
            empty = _next_empty(empty, line)


def _skip_line(text: IO[str], written: str, line: int) -> None:
    skipped = 0
    while written and not written.endswith("\n"):
        skipped += len(written)
        if skipped > _MAX_SKIPPED_CHARACTERS:
            raise FileError(
                f"line {line} is longer than {_MAX_SKIPPED_CHARACTERS} characters; has the file one object a line?"
            )
        try:
            written = text.readline(MOST_CHARACTERS)
        except (EOFError, OSError, zlib.error, UnicodeError) as error:
            raise FileError(f"line {line}: the rest cannot be read: {_reason(error)}") from None


class _NamedTwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NamedTwiceError(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def _json_row(line: int, written: str) -> Row:
    try:
        cells = json.loads(written, parse_float=Decimal, object_pairs_hook=_once)
    except _NamedTwiceError as error:
        return Row(line, {"(text)": written.rstrip("\r\n")}, f"names {str(error)[:50]!r} twice in one object")
    except (ValueError, RecursionError):
        return Row(line, {"(text)": written.rstrip("\r\n")}, "is not JSON")
    if not isinstance(cells, dict):
        return Row(line, {"(text)": written.rstrip("\r\n")}, "is not a JSON object")
    return Row(line, cells)


def _avro_rows(container: AvroContainer, name: str) -> Iterator[Row]:
    try:
        for number, record in enumerate(container.records(), 1):
            yield Row(number, record)
    except AvroError as error:
        raise FileError(f"{name}: {error}") from None
