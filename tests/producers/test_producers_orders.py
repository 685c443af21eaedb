"""Several rows an order become one conversion with items (B1): shops' exports, borders, repeats, memory, resuming."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers import AttributaryProducer, MemoryTransport, ProducerConfig
from attributary.producers.importer import run
from attributary.producers.importer.orders import MOST_ROWS, grouped
from attributary.producers.importer.plan import PlanError, plan_from
from attributary.producers.importer.repeats import Repeats
from attributary.producers.importer.row_mapper import RowMapper
from attributary.producers.importer.rows import Row, SourceFile
from attributary.producers.importer.run import FileImport, RejectsFile

HEADER = "Name,Email,Currency,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n"
TIME = "2026-11-28 10:01:00 +0100"
SHOPIFY = {
    "kind": "conversion",
    "group_by": "Name",
    "map": ["user_id=Email", "occurred_at=Created at", "value=Total", "currency=Currency",
            "items.item_id=Lineitem sku", "items.item_name=Lineitem name", "items.quantity=Lineitem quantity",
            "items.price=Lineitem price"],
    "constant": ["conversion_type=purchase"],
}  # fmt: skip


def order_lines(number: int, total: str = "54.50") -> str:
    return (
        f"#S{number},c{number}@example.com,EUR,{total},{TIME},1,Socks,24.50,sku-1\n"
        f"#S{number},c{number}@example.com,,,{TIME},2,Hat,15.00,sku-2\n"
    )


def job_of(path: Path, transport: MemoryTransport, options: dict[str, Any], **limits: Any) -> FileImport:
    plan = plan_from({}, options)
    producer = AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport)
    with (
        SourceFile(path) as source,
        RejectsFile(path.with_name("rejects"), append="skip" in limits) as rejects,
        producer,
    ):
        job = FileImport(RowMapper(plan, source.columns), plan.kind, producer, rejects)
        job.run(source.rows(), **limits)
    return job


def imported(
    tmp_path: Path, text: str, options: dict[str, Any] | None = None, **limits: Any
) -> tuple[FileImport, list[dict[str, Any]], list[dict[str, Any]]]:
    path = tmp_path / "orders.csv"
    path.write_text(text)
    transport = MemoryTransport()
    job = job_of(path, transport, options or SHOPIFY, **limits)
    rejects = path.with_name("rejects")
    lines = rejects.read_text().splitlines() if rejects.exists() else []
    return job, transport.records("conversion"), [json.loads(line) for line in lines]


def test_b1_the_rows_of_an_order_are_one_conversion(tmp_path: Path) -> None:
    job, records, rejects = imported(tmp_path, HEADER + "".join(map(order_lines, range(1, 21))))
    assert rejects == []
    assert (job.progress.rows, job.progress.orders, job.progress.accepted) == (40, 20, 20)
    assert sum(record["value_micros"] for record in records) == 1_090_000_000
    first = records[0]
    assert (first["event_id"], first["order_id"], first["user_id"]) == ("#S1", "#S1", "c1@example.com")
    assert [(item["item_id"], item["quantity"], item["price_micros"]) for item in first["items"]] == [
        ("sku-1", 1.0, 24_500_000), ("sku-2", 2.0, 15_000_000)
    ]  # fmt: skip


def test_b1_without_grouping_a_hint_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(HEADER + "".join(map(order_lines, range(1, 21))))
    arguments = ["produce", str(path), "--kind", "conversion", "--tenant", "acme", "--dry-run"]
    for text in ("order_id=Name", *SHOPIFY["map"][:4]):
        arguments += ["--map", text]
    arguments += ["--constant", "conversion_type=purchase", "--constant", "currency=EUR"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    assert "20 x column Total, value: is empty: a purchase states its value, 0 where it was free" in result.stdout
    assert "20 rows have the Name of the row above" in result.stderr
    assert "--group-by 'Name'" in result.stderr
    result = CliRunner().invoke(app, [*arguments, "--group-by", "Name"])
    assert result.exit_code == 0, result.output
    assert "40 rows, 20 orders: 20 could be published, 0 rejected" in result.stdout


def test_rows_that_name_no_order_and_hold_only_a_line_belong_to_the_order_above(tmp_path: Path) -> None:
    text = HEADER + f"#1,u1,EUR,30,{TIME},1,Socks,10,a\n,,,,,1,Hat,20,b\n,u2,EUR,5,{TIME},1,Cap,5,c\n"
    _, records, rejects = imported(tmp_path, text)
    assert [[item["item_id"] for item in record["items"]] for record in records] == [["a", "b"]]
    assert [(line["line"], line["column"], line["rule"]) for line in rejects] == [(4, "Name", "names no order")]


@pytest.mark.parametrize(
    ("second", "field", "column"),
    [
        (f"#1,u1,EUR,31,{TIME},1,Hat,20,b", "value", "Total"),
        (f"#1,u2,EUR,30,{TIME},1,Hat,20,b", "user_id", "Email"),
        ("#1,u1,EUR,30,2026-11-29 10:00:00 +0100,1,Hat,20,b", "occurred_at", "Created at"),
        (f"#1,u1,USD,30,{TIME},1,Hat,20,b", "currency", "Currency"),
    ],
)
def test_rows_of_an_order_that_contradict_each_other_are_refused(
    tmp_path: Path, second: str, field: str, column: str
) -> None:
    _, records, rejects = imported(tmp_path, HEADER + f"#1,u1,EUR,30,{TIME},1,Socks,10,a\n{second}\n")
    assert records == []
    assert [(line["line"], line["field"], line["column"]) for line in rejects] == [
        (2, field, column), (3, field, column)
    ]  # fmt: skip
    assert "another one than that of line 2" in rejects[0]["rule"]


def test_the_same_amount_written_in_two_ways_is_one(tmp_path: Path) -> None:
    text = HEADER + f"#1,u1,EUR,175,{TIME},1,Socks,10,a\n#1,u1,EUR,175.0000,{TIME},1,Hat,20,b\n"
    _, records, rejects = imported(tmp_path, text)
    assert ([record["value_micros"] for record in records], rejects) == ([175_000_000], [])


def test_values_of_rows_are_added_up_only_when_asked(tmp_path: Path) -> None:
    text = HEADER + f"#1,u1,EUR,10,{TIME},1,Socks,10,a\n#1,u1,EUR,20,{TIME},1,Hat,20,b\n"
    _, records, _ = imported(tmp_path, text, SHOPIFY | {"sum_values": True})
    assert [record["value_micros"] for record in records] == [30_000_000]
    _, records, rejects = imported(tmp_path, text)
    assert records == []
    assert "--sum-values adds them up" in rejects[0]["rule"]


def test_an_order_that_comes_back_further_down_is_refused_unless_it_says_the_same(tmp_path: Path) -> None:
    job, records, rejects = imported(
        tmp_path, HEADER + order_lines(1) + order_lines(2) + order_lines(1) + order_lines(2, total="60")
    )
    assert [record["event_id"] for record in records] == ["#S1", "#S2", "#S1"]
    assert records[0] == records[2]
    assert [line["line"] for line in rejects] == [8, 9]
    assert "has the order number of line 4 with other content; sort the file" in rejects[0]["rule"]
    assert (job.progress.orders, job.progress.rejected) == (4, 1)


def test_an_order_with_a_broken_row_is_refused_as_a_whole(tmp_path: Path) -> None:
    text = HEADER + f"#1,u1,EUR,30,{TIME},1,Socks,10,a\n#1,too,few\n" + order_lines(2)
    _, records, rejects = imported(tmp_path, text)
    assert [record["event_id"] for record in records] == ["#S2"]
    assert [line["line"] for line in rejects] == [2, 3]
    assert "line 3 of the order has 3 columns" in rejects[0]["rule"]


def test_an_order_without_end_fills_no_memory() -> None:
    def endless(rows: int) -> Iterator[Row]:
        for line in range(rows):
            yield Row(line + 2, {"Name": "#1", "note": "x" * 500})
        yield Row(rows + 2, {"Name": "#2"})

    tracemalloc.start()
    found = [
        (len(order.rows), order.fault is None)
        for order in grouped(endless(5 * MOST_ROWS), lambda row: str(row.cells["Name"]), lambda _: False)
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [*[(MOST_ROWS, False)] * 5, (1, True)]
    assert peak < 4 * MOST_ROWS * 700


def test_items_that_do_not_add_up_are_said(tmp_path: Path) -> None:
    options = SHOPIFY | {"items_total": ["Total"]}
    job, records, _ = imported(tmp_path, HEADER + order_lines(1) + order_lines(2, total="99"), options)
    assert len(records) == 2
    ((remark, count),) = job.remarks.most_common()
    assert (remark.rule, count.times, count.line) == ("the items do not cost what Total says", 1, 4)


def test_lines_of_which_nothing_was_bought_are_left_out_and_items_need_an_id(tmp_path: Path) -> None:
    text = HEADER + f"#1,u1,EUR,30,{TIME},0,Socks,10,a\n#1,u1,EUR,30,{TIME},1,Hat,20,b\n"
    text += f"#2,u1,EUR,30,{TIME},1,Socks,10,\n"
    _, records, rejects = imported(tmp_path, text)
    assert [[item["item_id"] for item in record["items"]] for record in records] == [["b"]]
    assert [(line["field"], line["column"]) for line in rejects] == [("items.item_id", "Lineitem sku")]


def test_checkpoints_limits_and_skips_fall_between_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_ROWS", 3)
    text = HEADER + "".join(map(order_lines, range(1, 6)))
    path = tmp_path / "orders.csv"
    path.write_text(text)
    first = MemoryTransport()
    assert job_of(path, first, SHOPIFY, limit=5).progress.resume_at == 4
    assert [record["event_id"] for record in first.records("conversion")] == ["#S1", "#S2"]
    seen: list[int] = []

    def stop(progress: run.Progress) -> None:
        seen.append(progress.resume_at)
        if progress.orders == 4:
            raise KeyboardInterrupt

    second = MemoryTransport()
    plan = plan_from({}, SHOPIFY)
    with SourceFile(path) as source, RejectsFile(tmp_path / "r") as rejects:
        producer = AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=second)
        job = FileImport(RowMapper(plan, source.columns), plan.kind, producer, rejects, stop)
        with pytest.raises(KeyboardInterrupt):
            job.run(source.rows())
    assert seen == [0, 0, 4, 4]
    third = MemoryTransport()
    job_of(path, third, SHOPIFY, skip=job.progress.resume_at)
    assert [record["event_id"] for record in third.records("conversion")] == ["#S3", "#S4", "#S5"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_every_row_comes_out_once_and_orders_are_runs_of_one_number(runs: list[tuple[int, int]]) -> None:
    rows = [Row(0, {"n": str(number)}) for number, length in runs for _ in range(length)]
    rows = [row._replace(line=line) for line, row in enumerate(rows, 2)]
    orders = list(grouped(iter(rows), lambda row: str(row.cells["n"]), lambda _: False))
    assert [row for order in orders for row in order.rows] == rows
    assert all({row.cells["n"] for row in order.rows} == {order.key} for order in orders)
    assert all(first.key != second.key for first, second in pairwise(orders))


def test_remembered_ids_are_bounded() -> None:
    repeats = Repeats(most=2)
    assert [repeats.first_line(key, {"a": key}, line) for line, key in enumerate("abca", 2)] == [None] * 4
    assert repeats.forgotten == 2
    assert repeats.first_line("c", {"a": "other"}, 9) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (SHOPIFY | {"kind": "touchpoint", "map": [], "constant": []}, "only conversions have several rows"),
        ({"kind": "conversion", "sum_values": True}, "--group-by"),
        (SHOPIFY | {"map": ["items.colour=x"]}, "items has no part colour"),
    ],
)
def test_plans_that_cannot_group(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        plan_from({}, options)


def test_a_number_column_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="column Order: the file has no such column"):
        imported(tmp_path, HEADER, SHOPIFY | {"group_by": "Order"})
