"""Files as the field writes them (facts/field-cases.md, facts/hostile.md): each test is named after its entry."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers import AttributaryProducer, MemoryTransport, ProducerConfig
from attributary.producers.importer.plan import plan_from
from attributary.producers.importer.row_mapper import RowMapper, RowRefused
from attributary.producers.importer.rows import FileError, Row, SourceFile
from attributary.producers.importer.run import FileImport, RejectsFile
from attributary.schemas.rules import check_touchpoint

NOON = "2024-06-01T12:00:00Z"


def imported(path: Path, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Import a file of conversions; return the records and the rejects."""
    plan = plan_from({}, {"kind": "conversion", "constant": ["currency=EUR", "conversion_type=purchase"]} | options)
    transport = MemoryTransport()
    rejects = path.with_name("rejects")
    producer = AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport)
    with SourceFile(path) as source, RejectsFile(rejects) as refused, producer:
        FileImport(RowMapper(plan, source.columns), plan.kind, producer, refused).run(source.rows())
    lines = rejects.read_text().splitlines() if rejects.exists() else []
    return transport.records("conversion"), [json.loads(line) for line in lines]


def written(tmp_path: Path, text: str, name: str = "orders.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def read_time(text: str, **options: Any) -> int:
    plan = plan_from({}, {"kind": "conversion", "constant": ["conversion_type=lead"]} | options)
    record = RowMapper(plan, ["user_id", "occurred_at"]).record(Row(2, {"user_id": "u1", "occurred_at": text}))
    return int(record["occurred_at"])


def test_b1_a_row_that_repeats_an_id_with_other_content_is_rejected(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"event_id,user_id,value,occurred_at\nS1,c1,54.50,{NOON}\nS1,c1,,{NOON}\nS2,c1,7,{NOON}\nS2,c1,7,{NOON}\n",
    )
    records, rejects = imported(path)
    assert [(each["event_id"], each["value_micros"]) for each in records] == [
        ("S1", 54_500_000), ("S2", 7_000_000), ("S2", 7_000_000)
    ]  # fmt: skip
    assert [(each["line"], each["field"]) for each in rejects] == [(3, "event_id")]
    assert "repeats the id of line 2 with other content" in rejects[0]["rule"]


UTC_10 = 1_763_632_800_000_000  # 2025-11-20 10:00 UTC
FORMAT = "%Y-%m-%d %H:%M:%S %Z"


@pytest.mark.parametrize("zone", ["UTC", "GMT", "utc", "gmt"])
@pytest.mark.parametrize("options", [{"time_format": FORMAT}, {"time_format": FORMAT, "timezone": "Europe/Berlin"}, {}])
def test_b5_a_zone_in_the_text_counts(zone: str, options: dict[str, str]) -> None:
    assert read_time(f"2025-11-20 10:00:00 {zone}", **options) == UTC_10


@pytest.mark.parametrize("zone", ["CET", "PST", "EST", "Z9"])
def test_b5_other_names_of_zones_are_refused(zone: str) -> None:
    with pytest.raises(RowRefused, match="occurred_at"):
        read_time(f"2025-11-20 10:00:00 {zone}", time_format=FORMAT, timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone"), [("2026-03-29 02:30:00", "Europe/Berlin"), ("2026-03-08 02:30:00", "America/New_York")]
)
def test_b23_a_time_that_never_was_is_refused(text: str, zone: str) -> None:
    with pytest.raises(RowRefused, match="never had"):
        read_time(text, timezone=zone)
    assert read_time(text.replace("02:30", "03:30"), timezone=zone)


def test_b17_the_codec_of_an_avro_file_is_named(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "user_id", "type": "string"}]}
    path = tmp_path / "orders.avro"
    with path.open("wb") as file:
        fastavro.writer(file, schema, [{"user_id": "u1"}], codec="null")
    bad = path.read_bytes().replace(b"\x08null", b"\x0csnappy", 1)
    path.write_bytes(bad)
    with pytest.raises(FileError, match=r"orders\.avro: .*snappy"):
        SourceFile(path)


def test_b19_empty_columns_lines_and_cells_are_left_out(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"\n,,\nuser_id,value,occurred_at,,\nu1,5,{NOON},,\nu2,6,{NOON},,,,\n,,,,\n"
        f"   , ,,,\nu3,7,{NOON}\nu4,8,{NOON},x,\n",
    )
    records, rejects = imported(path)
    assert [each["user_id"] for each in records] == ["u1", "u2", "u3"]
    assert [each["rule"] for each in rejects] == ["has 4 columns, the header has 3"]


@pytest.mark.parametrize("amount", ["1_000", "\uff11\uff19.99", "\u0663", "1,000.00", "EUR 5", "0x10", "5 000"])
def test_b28_amounts_are_read_strictly(tmp_path: Path, amount: str) -> None:
    records, rejects = imported(written(tmp_path, f'user_id,value,occurred_at\nu1,"{amount}",{NOON}\n'))
    assert (records, [each["field"] for each in rejects]) == ([], ["value"])


def test_b28_a_name_twice_in_json_is_refused_and_rejects_are_json(tmp_path: Path) -> None:
    twice = f'{{"user_id": "u1", "value": 5, "value": 7, "occurred_at": "{NOON}"}}\n'
    text = twice + '{"user_id": "u1", "value": NaN}\n'
    records, rejects = imported(written(tmp_path, text, "orders.jsonl"))
    assert records == []
    assert "names 'value' twice" in rejects[0]["rule"]
    assert rejects[1]["row"]["value"] == "nan"


@pytest.mark.parametrize(
    ("cell", "stored"), [("12345.0", "12345"), ("12345", "12345"), ('"u7 "', "u7"), ("1e3", "1000")]
)
def test_b6_numbers_of_json_become_ids_without_a_fraction(tmp_path: Path, cell: str, stored: str) -> None:
    text = f'{{"user_id": {cell}, "value": 5, "occurred_at": "{NOON}"}}\n'
    records, _ = imported(written(tmp_path, text, "orders.jsonl"))
    assert [each["user_id"] for each in records] == [stored]


def test_b6_a_number_that_lost_digits_is_no_id(tmp_path: Path) -> None:
    text = f'{{"user_id": 1e21, "value": 5, "occurred_at": "{NOON}"}}\n'
    records, rejects = imported(written(tmp_path, text, "orders.jsonl"))
    assert (records, rejects[0]["field"]) == ([], "user_id")
    assert "loses digits" in rejects[0]["rule"]


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"PK\x03\x04\x14\x00", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
        (b"%PDF-1.7 a,b", "PDF document"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh91AY", "bzip2"),
        (b"PAR1", "Parquet"),
        (b"Obj\x01", "Avro"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"  <!DOCTYPE html><p>sign in</p>", "web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "XML"),
        (b"user_id\x00,value\nu1,5\n", "binary"),
        ("user_id,value\nu1,5\n".encode("utf-16-le"), "UTF-16 text without a byte order mark"),
        (b"\x00\x01\x02" * 300, "binary"),
    ],
)
def test_b27_a_binary_file_is_named_as_such(tmp_path: Path, head: bytes, named: str) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(head)
    with pytest.raises(FileError, match=rf"orders\.csv: the file is .*{named}"):
        SourceFile(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_b27_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(f"user_id,value,occurred_at\nJosé,5,{NOON}\n".encode(encoding))
    records, rejects = imported(path)
    assert (rejects, [each["user_id"] for each in records]) == ([], ["José"])


def test_b30_control_characters_of_a_header_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = written(tmp_path, f"user_id,value,occurred_at,\x1b]0;owned\x07\nu1,5,{NOON},x\n")
    result = CliRunner().invoke(
        app,
        ["produce", str(path), "--kind", "conversion", "--tenant", "acme", "--dry-run", "--constant", "currency=EUR",
         "--constant", "conversion_type=purchase"],
    )  # fmt: skip
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\\x1b]0;owned\\x07" in result.output


def test_s15_a_header_of_commas_and_a_line_without_end_are_refused(tmp_path: Path) -> None:
    for name, content, reason in (
        ("a.csv.gz", b"a," * 200_000 + b"b\n", "columns"),
        ("b.csv.gz", b"," * (9 << 20), "longer"),
        ("c.csv.gz", b"user_id,value\n" + b"x" * (9 << 20), "longer"),
    ):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content))
        with pytest.raises(FileError, match=reason), SourceFile(path) as source:
            list(source.rows())


@pytest.mark.parametrize("channel", ["\x1b]0;pwned\x07email", "e\u200bmail", "em\x7fail", "a\nb"])
def test_s14_a_channel_with_control_characters_is_refused(channel: str) -> None:
    record = {"tenant_id": "acme", "event_id": "e", "anonymous_id": "a1", "occurred_at": 10**15, "platform": "x1",
              "channel": channel}  # fmt: skip
    broken = check_touchpoint(record)
    assert broken is not None
    assert broken.field == "channel"
