"""Files become records: formats, mapping, times, money, rejects, resuming."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.producers import AttributaryProducer, DeliveryFailed, MemoryTransport, ProducerConfig, Touchpoint
from attributary.producers.importer.plan import (
    ImportPlan,
    PlanError,
    parse_pairs,
    parse_timezone,
    plan_from,
    read_mapping_file,
)
from attributary.producers.importer.row_mapper import RowMapper, RowRefused, row_event_id
from attributary.producers.importer.rows import MOST_CHARACTERS, FileError, Row, SourceFile, format_of
from attributary.producers.importer.run import CHECKPOINT_ROWS, FileImport, RejectsFile
from attributary.schemas.schema_catalog import current_schemas

NOON = 1_717_243_200_000_000  # 2024-06-01 12:00 UTC
BERLIN = ZoneInfo("Europe/Berlin")

WriteFile = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def rows_of(path: Path, **options: Any) -> list[Row]:
    with SourceFile(path, **options) as source:
        return list(source.rows())


def one(plan: ImportPlan, cells: dict[str, Any], line: int = 2) -> dict[str, Any]:
    return RowMapper(plan).record(Row(line, cells))


def touch_cells(**others: Any) -> dict[str, Any]:
    return {"anonymous_id": "a1", "occurred_at": NOON, "platform": "x", "channel": "display"} | others


# --- rows -----------------------------------------------------------------------------------------------------------


def test_csv_rows_know_their_line_and_their_faults(write: WriteFile) -> None:
    path = write("a.csv", '\ufeffid,"text"\r\n1,"two\r\nlines"\r\n\r\n2\r\n3,x,y\r\n4,"open" x\r\n5,end\r\n')
    assert rows_of(path) == [
        Row(2, {"id": "1", "text": "two\r\nlines"}),
        Row(5, {"id": "2"}, "has 1 columns, the header has 2"),
        Row(6, {"id": "3", "text": "x", "(column 3)": "y"}, "has 3 columns, the header has 2"),
        Row(7, {}, "is no row of CSV: ',' expected after '\"'"),
        Row(8, {"id": "5", "text": "end"}),
    ]


def test_other_delimiters_and_compressed_files(write: WriteFile) -> None:
    expected = [Row(2, {"a": "1", "b": "2"})]
    assert rows_of(write("a.tsv", "a\tb\n1\t2\n")) == expected
    assert rows_of(write("b.csv", "a;b\n1;2\n"), delimiter=";") == expected
    assert rows_of(write("c.csv.gz", gzip.compress(b"a,b\n1,2\n"))) == expected
    assert rows_of(write("d.txt", "a,b\n1,2\n"), file_format="csv") == expected


def test_other_encodings_and_an_open_quotation_mark(write: WriteFile) -> None:
    path = write("a.csv", "a\ncafé\n".encode("cp1252"))
    assert rows_of(path, encoding="cp1252") == [Row(2, {"a": "café"})]
    assert rows_of(path) == [Row(2, {"a": "caf\udce9"})]
    with pytest.raises(FileError, match="encoding klingon"):
        rows_of(path, encoding="klingon")
    with pytest.raises(FileError, match="one character"):
        rows_of(path, delimiter="::")
    (row,) = rows_of(write("b.csv", 'a\n"open\n1\n2\n'))
    assert row == Row(2, {}, "is no row of CSV: unexpected end of data (up to line 4)")
    long = rows_of(write("c.csv", 'a\n"' + "x\n" * MOST_CHARACTERS + "end\n"))
    assert long[0].fault is not None
    assert long[0].fault.startswith("is no row of CSV: field larger")
    assert long[-1] == Row(MOST_CHARACTERS + 2, {"a": "end"})


def test_json_rows(write: WriteFile) -> None:
    path = write("a.jsonl", '{"a": 19.99}\n\n[1]\n{"a": \n' + "x" * (MOST_CHARACTERS + 5) + '\n{"a": "é"}')
    assert rows_of(path) == [
        Row(1, {"a": Decimal("19.99")}),
        Row(3, {"(text)": "[1]"}, "is not a JSON object"),
        Row(4, {"(text)": '{"a": '}, "is not JSON"),
        Row(5, {}, f"is longer than {MOST_CHARACTERS} characters"),
        Row(6, {"a": "é"}),
    ]


def test_avro_rows(write: WriteFile, tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    with path.open("wb") as file:
        schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}
        fastavro.writer(file, schema, [{"a": 1}, {"a": 2}])
    source = SourceFile(path)
    assert source.columns == ("a",)
    assert list(source.rows()) == [Row(1, {"a": 1}), Row(2, {"a": 2})]
    source.close()
    damaged = write("b.avro", path.read_bytes()[:-3])
    with pytest.raises(FileError, match="damaged from here on"):
        rows_of(damaged)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", "file is empty"),
        ("a.csv", "a,a\n", "two columns have the name a"),
        ("a.avro", "not avro", "not an Avro container"),
        ("a.jsonl.gz", b"\x1f\x8bbroken", "rest cannot be read"),
        ("a.xlsx", "", "ending says no format"),
    ],
)
def test_files_that_cannot_be_read(write: WriteFile, name: str, content: str | bytes, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        rows_of(write(name, content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        SourceFile(tmp_path / "a.csv")
    assert format_of(Path("x.2024.NDJSON.gz")) == "jsonl"


# --- plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"columns": {"colour": "c"}}, "colour: a touchpoint has no such field"),
        ({"columns": {"click_ids.": "c"}}, "click_ids has no part"),
        ({"columns": {"platform.name": "c"}}, "platform has no part name"),
        ({"columns": {"value": "c"}}, "value: a touchpoint has no such field"),
        ({"kind": "conversion", "columns": {"user_data.mail": "c"}}, "user_data has no part mail"),
        ({"constants": {"nothing": "x"}}, "nothing: a touchpoint has no such field"),
        ({"time_format": "epoch"}, "time format"),
        ({"time_format": "%d.%Q"}, "time format"),
        ({"time_format": "%"}, "time format"),
    ],
)
def test_plans_that_cannot_be_used(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        ImportPlan(**({"kind": "touchpoint"} | options))


def test_a_column_that_the_file_does_not_have() -> None:
    plan = ImportPlan(kind="touchpoint", columns={"user_id": "customer"})
    with pytest.raises(PlanError, match="column customer: the file has no such column; it has id, date"):
        RowMapper(plan, ["id", "date"])


def test_a_constant_that_its_field_cannot_be() -> None:
    with pytest.raises(PlanError, match="constant is_bot: must be true or false"):
        RowMapper(ImportPlan(kind="touchpoint", constants={"is_bot": "maybe"}))


def test_mapping_files(write: WriteFile) -> None:
    path = write(
        "m.yaml",
        "kind: conversion\ntimezone: Europe/Berlin\ndecimal_comma: true\ntime_format: '%d.%m.%Y'\n"
        "map: {value: total, user_id: customer}\nconstant: {currency: EUR, opt_out: true}\n",
    )
    plan = plan_from(read_mapping_file(path), {"map": ["user_id=person"], "constant": ["currency=CHF"]})
    assert plan == ImportPlan(
        kind="conversion",
        columns={"value": "total", "user_id": "person"},
        constants={"currency": "CHF", "opt_out": "true"},
        time_format="%d.%m.%Y",
        timezone=BERLIN,
        decimal_comma=True,
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("maps: {}", "maps is not known"),
        ("map: [user_id]", "map must hold"),
        ("map: {user_id: [[a]]}", "map must hold"),
        ("map: {user_id: []}", "map must hold"),
        ("kind: sale", "kind: must be one of"),
        ("timezone: Mars/Base", "timezone Mars/Base"),
    ],
)
def test_mapping_files_that_cannot_be_used(write: WriteFile, content: str, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        plan_from(read_mapping_file(write("m.yaml", content)), {})


def test_pairs() -> None:
    assert parse_pairs("--map", ["a=b=c", " d =e"]) == {"a": "b=c", "d": "e"}
    for pairs in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(PlanError, match="--map"):
            parse_pairs("--map", pairs)
    assert parse_timezone(None) is None


# --- records --------------------------------------------------------------------------------------------------------


def test_columns_with_the_name_of_a_field_need_no_mapping() -> None:
    mapper = RowMapper(
        ImportPlan(kind="touchpoint", columns={"user_id": "customer"}),
        ["customer", "occurred_at", "platform", "channel", "click_ids.gclid", "click_ids", "colour", "event_id"],
    )
    assert mapper.unused_columns() == ["colour"]
    cells = {
        "customer": "u1", "occurred_at": "2024-06-01T12:00:00Z", "platform": "google", "channel": "paid_search",
        "click_ids.gclid": "aB", "click_ids": '{"wbraid": "W"}', "colour": "red", "event_id": "e1",
    }  # fmt: skip
    record = mapper.record(Row(2, cells))
    assert (record["user_id"], record["occurred_at"], record["event_id"]) == ("u1", NOON, "e1")
    assert record["click_ids"] == {"wbraid": "W", "gclid": "aB"}
    assert record.keys() <= {field["name"] for field in current_schemas()["touchpoint"].source["fields"]}


@pytest.mark.parametrize(
    ("cell", "options", "expected"),
    [
        ("2024-06-01T12:00:00Z", {}, NOON),
        ("2024-06-01 14:00:00.000001+02:00", {}, NOON + 1),
        ("2024-06-01 14:00", {"timezone": BERLIN}, NOON),
        ("2024-06-01", {"timezone": ZoneInfo("UTC")}, NOON - 12 * 3_600_000_000),
        ("01.06.2024 14:00", {"time_format": "%d.%m.%Y %H:%M", "timezone": BERLIN}, NOON),
        ("01/Jun/2024:12:00:00 +0000", {"time_format": "%d/%b/%Y:%H:%M:%S %z"}, NOON),
        ("1717243200", {"time_format": "s"}, NOON),
        ("1717243200.0000015", {"time_format": "s"}, NOON + 1),
        ("1717243200000", {"time_format": "ms"}, NOON),
        ("1717243200000000", {"time_format": "us"}, NOON),
        (1717243200, {"time_format": "s"}, NOON),
        (NOON, {}, NOON),
        (datetime(2024, 6, 1, 12, tzinfo=UTC), {}, NOON),
        (datetime(2024, 6, 1, 14), {"timezone": BERLIN}, NOON),  # noqa: DTZ001 - as Avro's local timestamps come
        (date(2024, 6, 1), {"timezone": ZoneInfo("UTC")}, NOON - 12 * 3_600_000_000),
    ],
)
def test_times(cell: Any, options: dict[str, Any], expected: int) -> None:
    assert one(ImportPlan(kind="touchpoint", **options), touch_cells(occurred_at=cell))["occurred_at"] == expected


@pytest.mark.parametrize(
    ("cell", "options", "rule"),
    [
        ("2024-06-01 14:00", {}, "has no time zone"),
        ("yesterday", {}, "must be a time in ISO 8601"),
        ("1717243200", {}, "must be a time in ISO 8601"),
        ("2024-06-01", {"time_format": "%d.%m.%Y"}, "must be a time in the format"),
        ("noon", {"time_format": "s"}, "must be a number"),
        ("1e50", {"time_format": "s"}, "between the years"),
        (True, {}, "must be a time"),
        ([1], {}, "must be a text"),
    ],
)
def test_times_that_are_refused(cell: Any, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(RowRefused, match=rule) as caught:
        one(ImportPlan(kind="touchpoint", **options), touch_cells(occurred_at=cell))
    assert caught.value.field == "occurred_at"


def order(plan: dict[str, Any] | None = None, **cells: Any) -> dict[str, Any]:
    constants = {"currency": "EUR", "conversion_type": "purchase"}
    return one(
        ImportPlan(**({"kind": "conversion", "constants": constants} | (plan or {}))),
        {"user_id": "u1", "occurred_at": NOON} | cells,
    )


@pytest.mark.parametrize(
    ("cells", "plan", "micros"),
    [
        ({"value": "19.99"}, {}, 19_990_000),
        ({"value": Decimal("19.99")}, {}, 19_990_000),
        ({"value": 19.99}, {}, 19_990_000),
        ({"value": 20}, {}, 20_000_000),
        ({"value": "19,99"}, {"decimal_comma": True}, 19_990_000),
        ({"value": "500", "currency": "JPY"}, {}, 500_000_000),
        ({"value_micros": "19990000"}, {}, 19_990_000),
        ({}, {}, 0),
    ],
)
def test_money(cells: dict[str, Any], plan: dict[str, Any], micros: int) -> None:
    assert order(plan, **cells)["value_micros"] == micros


@pytest.mark.parametrize(
    ("cells", "plan", "field", "rule"),
    [
        ({"value": "19.999"}, {}, "value", "whole number of minor units"),
        ({"value": 0.1 + 0.2}, {}, "value", "whole number of minor units"),
        ({"value": "19,99"}, {}, "value", "must be a number"),
        ({"value": "1.299,00"}, {"decimal_comma": True}, "value", "no points"),
        ({"value": "NaN"}, {}, "value", "finite"),
        ({"value": True}, {}, "value", "must be a number"),
        ({"value": "1", "value_micros": "1"}, {}, "value", "beside value_micros"),
        ({"value": "1"}, {"constants": {"conversion_type": "purchase"}}, "currency", "must be set"),
        ({"value": "1", "currency": "euro"}, {}, "currency", "ISO 4217"),
        ({"value_micros": "1.5"}, {}, "value_micros", "whole number"),
        ({"items": '[{"item_id": "s", "price": "0.0000001"}]'}, {}, "items", "price must have 6 decimals at most"),
        ({"items": '[{"sku": "s"}]'}, {}, "items", "no other parts"),
        ({"items": '{"item_id": "s"}'}, {}, "items", "JSON array"),
        ({"items": '[{"item_id": "s", "quantity": "two"}]'}, {}, "items", "quantity must be a number"),
        ({"consent": "yes"}, {}, "consent", "JSON"),
        ({"opt_out": "perhaps"}, {}, "opt_out", "true or false"),
        ({"ga_client_id": b"x"}, {}, "ga_client_id", "text"),
    ],
)
def test_cells_that_are_refused(cells: dict[str, Any], plan: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(RowRefused, match=rule) as caught:
        order(plan, **cells)
    assert caught.value.field == field


def test_nested_fields() -> None:
    record = order(
        {"columns": {"user_data.email": "mail", "consent.ad_storage": "ads", "properties.shop": "meta.shop.name"}},
        mail="jo@example.org",
        ads="yes",
        meta={"shop": {"name": 7}},
        items=[{"item_id": uuid.UUID(int=1), "quantity": Decimal("1.5"), "price": Decimal("9.995"), "item_name": None}],
        data_processing_options='["LDU"]',
    )
    assert record["user_data"] == {"email": "jo@example.org"}
    assert record["consent"] == {"ad_storage": True}
    assert record["properties"] == {"shop": "7"}
    (item,) = record["items"]
    assert item == {"item_id": str(uuid.UUID(int=1)), "quantity": 1.5, "price_micros": 9_995_000}
    assert record["data_processing_options"] == ["LDU"]


def test_constants_fill_what_the_row_does_not_say() -> None:
    plan = ImportPlan(kind="touchpoint", constants={"channel": "email", "properties.source": "crm"})
    assert one(plan, touch_cells(channel=" "))["channel"] == "email"
    assert one(plan, touch_cells(properties={"a": "b"}))["properties"] == {"a": "b", "source": "crm"}
    assert one(plan, touch_cells())["channel"] == "display"


def test_a_landing_url_says_what_the_file_does_not() -> None:
    cells = {
        "user_id": "u1", "occurred_at": NOON, "user_agent": "curl/8.5.0", "utm_term": "mine",
        "landing_url": "https://shop.example.com/?utm_source=fb&utm_medium=paid&utm_term=theirs&fbclid=IwAR0aB",
    }  # fmt: skip
    record = one(ImportPlan(kind="touchpoint"), cells)
    assert (record["platform"], record["channel"], record["interaction"]) == ("meta", "paid_social", "click")
    assert (record["utm_source"], record["utm_term"], record["is_bot"]) == ("fb", "mine", True)
    assert record["click_ids"] == {"fbclid": "IwAR0aB", "fbc": "fb.1.1717243200000.IwAR0aB"}
    assert one(ImportPlan(kind="touchpoint"), touch_cells(user_agent="curl/8.5.0"))["is_bot"] is True
    assert one(ImportPlan(kind="touchpoint"), cells | {"channel": "own"})["channel"] == "own"


def test_event_ids_are_derived_from_content_and_line() -> None:
    row = Row(2, touch_cells())
    first = RowMapper(ImportPlan(kind="touchpoint")).record(row)["event_id"]
    assert first.startswith("import-")
    assert RowMapper(ImportPlan(kind="touchpoint", constants={"device": "tv"})).record(row)["event_id"] == first
    others = {row_event_id("touchpoint", row._replace(line=3)), row_event_id("conversion", row),
              row_event_id("touchpoint", Row(2, touch_cells(platform="y")))}  # fmt: skip
    assert first not in others
    assert len(others) == 3
    # Frozen: another way to derive them would store files that are imported again a second time.
    assert row_event_id("touchpoint", Row(2, {"a": "1"})) == "import-fd019803f24871b07372fdde413c9aac"


_CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_FIELD_NAMES = sorted(
    {field["name"] for name in ("touchpoint", "conversion") for field in current_schemas()[name].source["fields"]}
    | {"value", "user_agent", "click_ids.gclid"}
)


@given(
    st.sampled_from(["touchpoint", "conversion", "identity_link"]),
    st.dictionaries(st.sampled_from(_FIELD_NAMES), _CELLS, max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_row_holds_is_published_or_put_aside(kind: Any, cells: dict[str, Any]) -> None:
    base = {"user_id": "u", "anonymous_id": "a", "occurred_at": NOON, "linked_at": NOON, "platform": "x",
            "channel": "display", "conversion_type": "lead", "currency": "EUR"}  # fmt: skip
    transport = MemoryTransport()
    with RejectsFile(Path("/dev/null"), append=True) as rejects:
        producer = AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport)
        job = FileImport(RowMapper(ImportPlan(kind=kind)), kind, producer, rejects)
        progress = job.run(iter([Row(2, base | cells)]))
    assert progress.accepted + progress.rejected == 1
    assert len(transport.messages) == progress.accepted


# --- runs -----------------------------------------------------------------------------------------------------------


def run_import(
    rows: Iterator[Row], rejects: Path, transport: MemoryTransport, *, skip: int = 0, limit: int | None = None
) -> FileImport:
    with RejectsFile(rejects, append=skip > 0) as aside:
        producer = AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport)
        job = FileImport(RowMapper(ImportPlan(kind="touchpoint")), "touchpoint", producer, aside)
        job.run(rows, skip=skip, limit=limit)
    return job


def numbered(count: int, bad: tuple[int, ...] = ()) -> Iterator[Row]:
    for number in range(count):
        yield Row(number + 2, touch_cells(platform="X!" * 90 if number in bad else "x", properties={"n": str(number)}))


def test_bad_rows_are_put_aside_and_the_rest_is_published(tmp_path: Path) -> None:
    rejects, transport = tmp_path / "r.jsonl", MemoryTransport()
    job = run_import(numbered(10, bad=(3, 7)), rejects, transport)
    progress = job.progress
    assert (progress.rows, progress.accepted, progress.rejected, progress.resume_at) == (10, 8, 2, 10)
    assert [record["properties"]["n"] for record in transport.records("touchpoint")] == list("01245689")
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(line["line"], line["field"]) for line in lines] == [(5, "platform"), (9, "platform")]
    assert lines[0]["row"]["properties"] == {"n": "3"}
    assert rejects.stat().st_mode & 0o077 == 0


def test_skip_and_limit_and_the_rejects_of_the_part_before(tmp_path: Path) -> None:
    rejects, transport = tmp_path / "r.jsonl", MemoryTransport()
    run_import(numbered(10, bad=(1, 6)), rejects, transport, limit=4)
    job = run_import(numbered(10, bad=(1, 6)), rejects, transport, skip=4)
    assert job.progress.resume_at == 10
    assert [record["properties"]["n"] for record in transport.records("touchpoint")] == list("02345789")
    assert len(rejects.read_text().splitlines()) == 2
    run_import(numbered(10), rejects, transport)
    assert not rejects.exists()


def test_the_same_file_twice_has_the_same_event_ids(tmp_path: Path) -> None:
    first, second = MemoryTransport(), MemoryTransport()
    run_import(numbered(50), tmp_path / "r", first)
    run_import(numbered(50), tmp_path / "r", second)
    ids = [record["event_id"] for record in first.records("touchpoint")]
    assert ids == [record["event_id"] for record in second.records("touchpoint")]
    assert len(set(ids)) == 50


def test_an_import_that_broke_off_goes_on_without_loss(tmp_path: Path) -> None:
    transport, count = MemoryTransport(), CHECKPOINT_ROWS + 500
    producer = AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport)
    with RejectsFile(tmp_path / "r") as aside:
        job = FileImport(RowMapper(ImportPlan(kind="touchpoint")), "touchpoint", producer, aside)

        def broker_goes_away(progress: Any) -> None:
            if progress.rows == CHECKPOINT_ROWS + 100:
                transport.fail_next("broker is away")

        job._on_progress = broker_goes_away
        with pytest.raises(DeliveryFailed):
            job.run(numbered(count))
    assert job.progress.resume_at == CHECKPOINT_ROWS
    run_import(numbered(count), tmp_path / "r", transport, skip=job.progress.resume_at)
    assert {record["properties"]["n"] for record in transport.records("touchpoint")} == set(map(str, range(count)))


def test_memory_does_not_grow_with_the_file(write: WriteFile) -> None:
    def peak(lines: int) -> int:
        path = write("big.csv", "anonymous_id,occurred_at\n" + "a1,2024-06-01T12:00:00Z\n" * lines)
        tracemalloc.start()
        source = SourceFile(path)
        for _ in source.rows():
            pass
        source.close()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40_000) < peak(2_000) + 200_000


def test_our_own_avro_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "own.avro"
    touchpoint = Touchpoint(
        tenant_id="t", occurred_at=NOON, platform="x", channel="display", user_id="u", consent={"ad_storage": False}
    )
    with path.open("wb") as file:
        fastavro.writer(file, current_schemas()["touchpoint"].source, [touchpoint.to_record()])
    (row,) = rows_of(path)
    assert RowMapper(ImportPlan(kind="touchpoint"), list(row.cells)).record(row) == touchpoint.to_record()


def test_b2_page_views_inside_a_visit_make_no_touch(tmp_path: Path) -> None:
    file = tmp_path / "touches.csv"
    file.write_text(
        "anonymous_id,occurred_at,landing_url,referrer\n"
        "a1,2024-06-01T12:00:00Z,https://shop.example.com/?gclid=Cj0,https://www.google.com/\n"
        "a1,2024-06-01T12:05:00Z,https://shop.example.com/thanks?order=1,https://www.paypal.com/checkoutnow\n"
        "a1,2024-06-01T12:06:00Z,https://shop.example.com/b,https://shop.example.com/a\n"
        "a1,2024-06-01T12:07:00Z,https://shop.example.com/b,https://accounts.google.com/\n"
        "a1,2024-06-01T12:08:00Z,https://shop.example.com/b,https://brand-checkout.net/\n"
    )
    plan = plan_from({}, {"kind": "touchpoint", "own_domains": ["https://www.brand-checkout.net"]})
    transport = MemoryTransport()
    with SourceFile(file) as source, RejectsFile(tmp_path / "rejects") as rejects:
        mapper = RowMapper(plan, source.columns)
        with AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport) as producer:
            progress = FileImport(mapper, plan.kind, producer, rejects).run(source.rows())
    assert (progress.rows, progress.accepted, progress.internal, progress.rejected) == (5, 1, 4, 0)
    assert [record["channel"] for record in transport.records("touchpoint")] == ["paid_search"]


def test_b16_an_own_domain_that_names_no_host_stops_the_import() -> None:
    with pytest.raises(PlanError, match="own domain 'com'"):
        plan_from({}, {"kind": "touchpoint", "own_domains": ["com"]})
