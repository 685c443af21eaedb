"""Rows of a file, one at a time: CSV, JSON lines, Avro containers.

Invariant: memory does not grow with the file. A line that is no row comes out as a row with a ``fault``, and reading
goes on behind it; only an Avro block that cannot be decoded ends the file, because nothing behind it can be found.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Literal, NamedTuple, Self, cast

import fastavro

Format = Literal["csv", "tsv", "jsonl", "avro"]

FORMATS: Mapping[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".avro": "avro",
}  # fmt: skip
MOST_CHARACTERS = 1 << 20
"""Longest cell of CSV and longest line of JSON; a longer one is refused, not read into memory by parts."""

_LONGEST_LINE = 8 << 20
_MOST_COLUMNS = 2_000
_AVRO_CODECS = ("null", "deflate")

_BROKEN_AVRO = (
    ValueError, TypeError, LookupError, EOFError, OverflowError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


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
    raise FileError(
        f"{path.name}: the ending says no format; expected one of {', '.join(FORMATS)} (or name the format)"
    )


class SourceFile:
    """A file that is being imported.

    Args:
        path: the file; CSV and JSON lines may be compressed by gzip.
        file_format: its format; by its name when not given.
        delimiter: between the cells of CSV.
        encoding: of CSV and JSON lines.

    Raises:
        FileError: it cannot be opened, or is not of its format at all.
    """

    def __init__(
        self,
        path: Path,
        file_format: Format | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8-sig",
    ) -> None:
        self.format = file_format or format_of(path)
        self._name = path.name
        self._delimiter = delimiter or ("\t" if self.format == "tsv" else ",")
        self._encoding = encoding
        if len(self._delimiter) != 1:
            raise FileError("the delimiter must be one character")
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
        if self.format == "avro":
            return self._open_avro()
        # Bytes that the encoding does not know become half surrogate pairs, which the rules refuse row by row.
        try:
            text = io.TextIOWrapper(self._bytes, encoding=self._encoding, errors="surrogateescape", newline="")
        except LookupError:
            raise FileError(f"encoding {self._encoding}: is not known") from None
        self._text = text
        return _json_rows(text) if self.format == "jsonl" else self._open_csv(text)

    def _open_csv(self, text: IO[str]) -> Iterator[Row]:
        csv.field_size_limit(MOST_CHARACTERS)
        name = self._name
        reader = csv.reader(_bounded_lines(text, name), delimiter=self._delimiter, strict=True)
        header: list[str] = []
        try:
            while not any(header):  # empty lines above the header, as Excel leaves them
                header = [column.strip() for column in next(reader)]
        except StopIteration:
            raise FileError(f"{name}: the file is empty: its first line must name the columns") from None
        except (csv.Error, OSError, EOFError, zlib.error) as error:
            raise FileError(f"{name}: the first line is no header of columns: {error}") from None
        if len(header) > _MOST_COLUMNS:
            raise FileError(f"{name}: the header has {len(header)} columns, {_MOST_COLUMNS} at most are read")
        while not header[-1]:  # a trailing separator names no column
            header.pop()
        twice = sorted(column for column, count in Counter(filter(None, header)).items() if count > 1)
        if twice:
            raise FileError(f"{name}: two columns have the name {twice[0]}")
        if any("\0" in column for column in header):
            raise FileError(f"{name}: the file is binary, or of another encoding: {_hint(header[0])}")
        self.columns = tuple(filter(None, header))
        return _csv_rows(reader, header)

    def _open_avro(self) -> Iterator[Row]:
        try:
            reader = fastavro.reader(self._bytes)
            schema, codec = reader.writer_schema, str(reader.codec)
        except _BROKEN_AVRO as error:
            if "codec" in str(error):
                raise FileError(f"{self._name}: {error}") from None
            raise FileError(f"{self._name}: the file is not an Avro container file") from None
        if codec not in _AVRO_CODECS:
            known = " or ".join(_AVRO_CODECS)
            raise FileError(f"{self._name}: codec {codec[:20]!r} is not supported; write the file with {known}")
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise FileError("the records of the Avro file are not records with fields")
        self.columns = tuple(field["name"] for field in schema["fields"])
        return _avro_rows(reader)


def _csv_rows(reader: Any, header: list[str]) -> Iterator[Row]:
    columns = len(header)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            upto = f" (up to line {reader.line_num})" if reader.line_num > line else ""
            yield Row(line, {}, f"is no row of CSV: {error}{upto}")
            continue
        except (EOFError, OSError, zlib.error) as error:
            raise FileError(f"line {line}: the compressed file is damaged: {error}") from None
        if cells is None:
            return
        if not any(map(str.strip, cells)):
            continue
        while len(cells) > columns and not cells[-1].strip():  # Excel's empty cells behind the last column
            cells.pop()
        missing = [cell for column, cell in zip(header, cells, strict=False) if not column and cell.strip()]
        if len(cells) == columns and not missing:
            yield Row(line, {column: cell for column, cell in zip(header, cells, strict=True) if column})
            continue
        named = {column: cell for column, cell in zip(header, cells, strict=False) if column}
        more = {f"(column {number})": cell for number, cell in enumerate(cells[columns:], columns + 1)}
        fault = f"has {len(cells)} columns, the header has {columns}"
        yield Row(line, named | more, "has a value in a column without a name" if missing else fault)


def _bounded_lines(text: IO[str], name: str) -> Iterator[str]:
    """Yield the lines of a file; a line without an end must not fill the memory."""
    line = 0
    while written := text.readline(_LONGEST_LINE + 1):
        line += 1
        if len(written) > _LONGEST_LINE:
            raise FileError(f"{name}: line {line} is longer than {_LONGEST_LINE} characters; has it one row a line?")
        yield written


def _hint(first: str) -> str:
    return "save it as CSV in UTF-8" if first[:2] in {"PK", "\udcd0\udccf"} else "UTF-16 is --encoding utf-16"


def _json_rows(text: IO[str]) -> Iterator[Row]:
    line = 0
    while True:
        line += 1
        try:
            written = text.readline(MOST_CHARACTERS + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise FileError(f"line {line}: the compressed file is damaged: {error}") from None
        if not written:
            return
        if len(written) > MOST_CHARACTERS:
            _skip_line(text, written)
            yield Row(line, {}, f"is longer than {MOST_CHARACTERS} characters")
        elif written.strip():
            yield _json_row(line, written)


def _skip_line(text: IO[str], written: str) -> None:
    while written and not written.endswith("\n"):
        written = text.readline(MOST_CHARACTERS)


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


def _avro_rows(reader: Any) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            record = next(reader, None)
        except _BROKEN_AVRO:
            raise FileError(f"record {number}: the Avro file is damaged from here on") from None
        if record is None:
            return
        yield Row(number, record)
