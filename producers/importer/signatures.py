"""What a file is by its first bytes, when it is no text: named so that it can be saved in another form.

Contract: ``binary_kind`` knows the formats that people meet under the name .csv; ``looks_binary`` knows the rest by NUL
bytes, which no text in UTF-8 or a code page has.
"""

from __future__ import annotations

HEAD_BYTES = 4_096

AVRO = b"Obj\x01"
PARQUET = b"PAR1"
_UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Magic numbers as the formats' own specifications have them.
_KINDS = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook (.xlsx); save the table as CSV"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls); save the table as CSV"),
    (b"\x1f\x8b", "compressed by gzip; unpack it, or give it a name that ends with .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"%PDF-", "a PDF document; export the table as CSV"),
    (b"{\\rtf", "a text document (.rtf); export the table as CSV"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (PARQUET, "a Parquet file"),
    (AVRO, "an Avro container; name it .avro"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3\x00", "a SQLite database"),
)
_MARKUP = (b"<!doctype html", b"<html", b"<?xml")


def binary_kind(head: bytes) -> str | None:
    """Return what a file is, and what to do about it; None for a text.

    Args:
        head: its first ``HEAD_BYTES``.
    """
    found = next((kind for magic, kind in _KINDS if head.startswith(magic)), None)
    if found is None and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(_MARKUP):
        return "a web page or XML, perhaps an error or a sign-in page instead of the export; download it again"
    return found


def other_text(head: bytes, file_format: str) -> str | None:
    """Return what a text is when it is not of the format that its name says; None where it may be.

    Args:
        head: its first ``HEAD_BYTES``.
        file_format: csv, tsv or jsonl.
    """
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first == b"[" and file_format == "jsonl":
        return "one JSON array; write one object a line: jq -c '.[]'"
    if first == b"{" and file_format != "jsonl":
        return "JSON; name it .jsonl, with one object a line (or --format jsonl)"
    return None


def encoding_of_mark(head: bytes) -> str | None:
    """Return the encoding that a byte order mark names: utf-16 or utf-32; None without one."""
    if head.startswith(_UTF_32):
        return "utf-32"
    return "utf-16" if head.startswith(_UTF_16) else None


def looks_binary(head: bytes) -> str | None:
    """Return what NUL bytes in a file without a byte order mark mean; None where there are none."""
    zeros = head.count(0)
    if not zeros:
        return None
    if zeros * 3 > len(head):
        return "UTF-16 text without a byte order mark; save it as UTF-8, or name its encoding"
    return "binary, or damaged; save the table as CSV in UTF-8"
