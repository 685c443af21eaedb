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
        reader = csv.reader(text, delimiter=self._delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
        except (csv.Error, OSError, EOFError) as error:
            raise FileError(f"the first line is no header of columns: {error}") from None
        if not header:
            raise FileError("the file is empty: the first line must name the columns")
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise FileError(f"two columns have the name {twice[0] or '(empty)'}")
        self.columns = tuple(header)
        return _csv_rows(reader, header)

    def _open_avro(self) -> Iterator[Row]:
        try:
            reader = fastavro.reader(self._bytes)
            schema = reader.writer_schema
        except _BROKEN_AVRO:
            raise FileError("the file is not an Avro container file") from None
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
        if len(cells) == columns:
            yield Row(line, dict(zip(header, cells, strict=True)))
        elif cells:
            named = dict(zip(header, cells, strict=False))
            more = {f"(column {number})": cell for number, cell in enumerate(cells[columns:], columns + 1)}
            yield Row(line, named | more, f"has {len(cells)} columns, the header has {columns}")


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


def _json_row(line: int, written: str) -> Row:
    try:
        cells = json.loads(written, parse_float=Decimal)
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
