"""Files that unpack to more than they show: refused with the file and the limit, within 512 MiB (S15)."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from attributary.producers.importer.avro_container import MAX_RECORD_BYTES
from attributary.producers.importer.rows import FileError, Row, SourceFile

LIMIT = 512 << 20
SYNC = b"0123456789abcdef"
TEXT = {"type": "record", "name": "r", "fields": [{"name": "user_id", "type": "string"}]}

READ = """
import resource, sys, time
from pathlib import Path
from attributary.producers.importer.rows import FileError, SourceFile
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
started, said, rows = time.process_time(), "", 0
try:
    with SourceFile(Path(sys.argv[2])) as source:
        for row in source.rows():
            rows += 1
            said = row.fault or said
except FileError as error:
    said = f"FileError {error}"
print(rows, round(time.process_time() - started, 1), said)
"""
PLAIN = """
import resource, sys, fastavro
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
try:
    for record in fastavro.reader(open(sys.argv[2], "rb")): pass
except MemoryError:
    print("MemoryError")
"""


def varint(value: int) -> bytes:
    zigzag, out = (value << 1) ^ (value >> 63), b""
    while zigzag > 0x7F:
        out += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    return out + bytes([zigzag])


def container(schema: Any, block: bytes, *, count: int = 1, codec: bytes = b"null", size: int | None = None) -> bytes:
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    meta = b"".join(
        varint(len(name)) + name + varint(len(value)) + value
        for name, value in ((b"avro.schema", text), (b"avro.codec", codec))
    )
    head = b"Obj\x01" + varint(2) + meta + varint(0) + SYNC
    return head + varint(count) + varint(len(block) if size is None else size) + block + SYNC


def repeated(part: bytes, times: int, first: bytes) -> bytes:
    """Deflate a first text and many equal parts: a part is packed once, and its bytes stand there as often."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    body = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + body * times + packer.flush()


def deflated(size: int, first: bytes = b"") -> bytes:
    return repeated(bytes(1 << 20), size >> 20, first)


def zipped(part: bytes, times: int, first: bytes = b"") -> bytes:
    checksum = zlib.crc32(first)
    for _ in range(times):
        checksum = zlib.crc32(part, checksum)
    size = (len(first) + len(part) * times) & 0xFFFFFFFF
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"  # RFC 1952: deflate, no name, no time
    return head + repeated(part, times, first) + struct.pack("<II", checksum, size)


def record_of(kind: Any) -> dict[str, Any]:
    return {"type": "record", "name": "r", "fields": [{"name": "a", "type": kind}]}


def laughs(levels: int) -> dict[str, Any]:
    """Each record names the next one ten times: 10 ** levels parts in no bytes."""
    inner: Any = {"type": "record", "name": "n0", "fields": [{"name": "f", "type": "null"}]}
    for level in range(1, levels):
        fields = [{"name": "f0", "type": inner}, *({"name": f"f{i}", "type": f"n{level - 1}"} for i in range(1, 10))]
        inner = {"type": "record", "name": f"n{level}", "fields": fields}
    return {"type": "record", "name": "r", "fields": [{"name": "b", "type": "boolean"}, {"name": "a", "type": inner}]}


NULLS = container(record_of({"type": "array", "items": "null"}), varint(300_000_000) + varint(0))
BOMB = container(TEXT, deflated(600 << 20, varint(600 << 20)), codec=b"deflate")
FLAGS = {"type": "array", "items": {"type": "record", "name": "i", "fields": [{"name": "b", "type": "boolean"}]}}

HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "array of nulls": ("a.avro", lambda: NULLS, "a.avro: .*array of items without bytes"),
    "deflate block": ("b.avro", lambda: BOMB, "b.avro: record 1: the block takes more than 16777216 bytes when"),
    "array of empty records": (
        "c.avro",
        lambda: container(
            record_of({"type": "array", "items": {"type": "record", "name": "e", "fields": []}}),
            varint(10**9) + varint(0),
        ),
        "array of items without bytes",
    ),
    "fixed of no bytes": (
        "d.avro",
        lambda: container(
            record_of({"type": "array", "items": {"type": "fixed", "name": "z", "size": 0}}), varint(10**9) + varint(0)
        ),
        "array of items without bytes",
    ),
    "records of nothing": ("e.avro", lambda: container(record_of("null"), b"", count=10**12), "records take no bytes"),
    "more records than bytes": ("f.avro", lambda: container(TEXT, b"\0" * 10, count=10**12), "f.avro: .*damaged"),
    "records that name records": ("g.avro", lambda: container(laughs(10), b"\1"), "more than 10000 parts"),
    "one record of a block": (
        "h.avro",
        lambda: container(record_of(FLAGS), deflated(15 << 20, varint(15 << 20)) + b"", codec=b"deflate"),
        "h.avro: record 1: it takes more than 1048576 bytes",
    ),
    "size of a block": ("i.avro", lambda: container(TEXT, b"\0", size=1 << 40), "block takes more than 16777216 bytes"),
    "header in gz": (
        "j.avro.gz",
        lambda: zipped(bytes(1 << 20), 100, b"Obj\x01" + varint(1) + varint(11) + b"avro.schema" + varint(600 << 20)),
        "j.avro.gz: the header takes more than 1048576 bytes",
    ),
    "nested schema": (
        "k.avro",
        lambda: container(b'{"type":"record","name":"r","fields":' + b"[" * 10**5 + b"]" * 10**5 + b"}", b""),
        "k.avro: ",
    ),
    "long decimal": (
        "l.avro",
        lambda: container(
            record_of({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}),
            varint(1 << 19) + b"\x7f" * (1 << 19),
        ),
        "l.avro: record 1: .*damaged",
    ),
    "snappy": ("m.avro", lambda: container(TEXT, b"", codec=b"snappy"), "m.avro: codec 'snappy' is not supported"),
    "zstandard": ("n.avro", lambda: container(TEXT, b"", codec=b"zstandard"), "codec 'zstandard' is not supported"),
    "fields": (
        "o.avro",
        lambda: container(
            {"type": "record", "name": "r", "fields": [{"name": f"f{i}", "type": "int"} for i in range(2_001)]}, b""
        ),
        "o.avro: the schema has 2001 fields, 2000 at most",
    ),
    "header of commas": ("a.csv.gz", lambda: zipped(b"," * (1 << 20), 100), "a.csv.gz: line 1 is longer than 8388608"),
    "short header of commas": (
        "b.csv",
        lambda: b"a" + b"," * (4 << 20),
        "b.csv: the header has 4194305 columns, 2000 at most",
    ),
    "line in gz": ("c.csv.gz", lambda: zipped(b"x" * (1 << 20), 100, b"a,b\n"), "c.csv.gz: line 2 is longer"),
    "row of many lines": ("d.csv.gz", lambda: zipped(b'"\n",' * (1 << 18), 100, b"a,b\n"), "belongs to a row"),
    "cell of many lines": ("e.csv.gz", lambda: zipped(b"\n" * (1 << 20), 100, b'a,b\n"'), "2000000 empty lines"),
    "empty lines": ("f.csv.gz", lambda: zipped(b"\n" * (1 << 20), 100), "f.csv.gz: the first 1000 lines are empty"),
    "many cells": ("g.csv", lambda: b"a,b\n" + b"12," * (2 << 20) + b"\n", "has 2097152 columns, the header has 2"),
    "line of json": ("a.jsonl.gz", lambda: zipped(b" " * (1 << 20), 100), "line 1 is longer than 67108864 characters"),
    "empty lines of json": ("d.jsonl.gz", lambda: zipped(b"\n" * (1 << 20), 100), "2000000 empty lines"),
    "json in json": ("b.jsonl", lambda: b"[" * (1 << 20), "is one JSON array"),
    "digits": ("c.jsonl", lambda: b'{"a": ' + b"9" * (1 << 19) + b"}", "is not JSON"),
    "gz in gz": ("h.csv.gz.gz", lambda: gzip.compress(zipped(bytes(1 << 20), 100)), "h.csv.gz.gz: "),
    "zip": ("i.csv", lambda: b"PK\3\4" + bytes(1 << 20), "i.csv: "),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_s15_a_hostile_file_is_refused_within_512_mib(case: str, tmp_path: Path) -> None:
    name, content, reason = HOSTILE[case]
    path = tmp_path / name
    path.write_bytes(content())
    assert path.stat().st_size < 10 << 20
    done = subprocess.run(
        [sys.executable, "-c", READ, str(LIMIT), str(path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    rows, seconds, said = done.stdout.split(" ", 2)
    assert re.search(reason, said), said
    assert (int(rows) <= 2, float(seconds) < 10) == (True, True), done.stdout


@pytest.mark.parametrize("content", [NULLS, BOMB], ids=["array of nulls", "deflate block"])
def test_s15_the_same_files_fill_the_memory_of_a_reader_without_limits(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(LIMIT), str(path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout == "MemoryError\n"


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_s15_a_large_block_of_usual_records_is_read(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    records = [{"user_id": f"u{i}" + "x" * 500} for i in range(10_000)]
    with path.open("wb") as file:
        fastavro.writer(file, TEXT, records, codec=codec, sync_interval=8 << 20)
    with SourceFile(path) as source:
        assert [row.cells for row in source.rows()] == records
    assert sum(len(each["user_id"]) for each in records) > 4 * MAX_RECORD_BYTES


def test_s15_decimals_and_times_of_avro_are_what_they_were(tmp_path: Path) -> None:
    money = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
    fields = [{"name": "value", "type": ["null", money]}, {"name": "d", "type": {"type": "int", "logicalType": "date"}}]
    schema = {"type": "record", "name": "r", "fields": fields}
    path = tmp_path / "a.avro"
    with path.open("wb") as file:
        fastavro.writer(file, schema, [{"value": Decimal("-19.99"), "d": 1}, {"value": Decimal("0.05"), "d": 2}])
    with path.open("rb") as file, SourceFile(path) as source:
        assert [row.cells for row in source.rows()] == list(fastavro.reader(file))


@pytest.mark.parametrize("position", range(0, 260, 7))
def test_s15_a_damaged_container_is_refused_wherever_the_damage_is(position: int, tmp_path: Path) -> None:
    whole = io.BytesIO()
    fastavro.writer(whole, TEXT, [{"user_id": "u1"}, {"user_id": "u2"}], codec="deflate")
    raw = whole.getvalue()
    for bad in (raw[: position % len(raw)], raw[:position] + struct.pack("B", 0xFF) + raw[position + 1 :]):
        path = tmp_path / "a.avro"
        path.write_bytes(bad)
        try:
            with SourceFile(path) as source:
                rows = list(source.rows())
        except FileError as error:
            assert str(error).startswith("a.avro: ")  # noqa: PT017
        else:
            assert all(isinstance(row, Row) for row in rows)


@pytest.mark.parametrize(("name", "encoding"), [("a.csv", "utf-16"), ("a.jsonl", "utf-16"), ("a.csv", "utf-32")])
def test_s15_bytes_that_the_encoding_does_not_have_end_the_file(name: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes('{"a": 1}\n'.encode(encoding) + b"\x00\xd8\x00\xd8\x0a\x00")
    with pytest.raises(FileError, match="utf"), SourceFile(path, encoding=encoding) as source:
        list(source.rows())
