"""Presets: each sample of fixtures/exports goes from the file to published records; each preset cites its sources."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from typer.testing import CliRunner

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.cli.main import app
from attributary.cli.mapping_options import Preset
from attributary.producers import AttributaryProducer, MemoryTransport, ProducerConfig
from attributary.producers.importer import presets
from attributary.producers.importer.open_file import OpenFile, open_file
from attributary.producers.importer.outcomes import RowRefused
from attributary.producers.importer.plan import ImportPlan, PlanError, plan_from
from attributary.producers.importer.run import FileImport, RejectsFile

EXPORTS = Path(__file__).resolve().parents[1] / "fixtures" / "exports"
FIRST, SECOND = "2026-11-28T10:01:00+01:00", "2026-11-28T11:19:58+01:00"


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def opened(path: Path, **options: Any) -> OpenFile:
    return open_file(path, options)


def imported(path: Path, tmp_path: Path, **options: Any) -> tuple[list[dict[str, Any]], FileImport]:
    source, plan, mapper, _ = opened(path, **options)
    transport = MemoryTransport()
    config = ProducerConfig(default_tenant="acme", default_region="DE")
    with source, RejectsFile(tmp_path / "rejects") as rejects, AttributaryProducer(config, transport=transport) as sink:
        job = FileImport(mapper, plan.kind, sink, rejects)
        job.run(source.rows())
    assert job.reasons.most_common() == []
    return transport.records(plan.kind), job


def net(records: list[dict[str, Any]]) -> dict[str, int]:
    """Return what each order is worth after its corrections, in cents."""
    names = ("occurred_at", "event_id", "kind", "value_micros", "currency")
    found: dict[str, list[ConversionEvent]] = {}
    for record in records:
        found.setdefault(record["order_id"] or record["event_id"], []).append(
            ConversionEvent(*(record[name] for name in names))
        )
    return {order: fold(events).net_value_micros // 10_000 for order, events in found.items()}


def items(record: dict[str, Any]) -> list[tuple[str, float, int | None]]:
    return [(item["item_id"], item["quantity"], item["price_micros"]) for item in record["items"]]


def test_shopify(tmp_path: Path) -> None:
    records, job = imported(EXPORTS / "shopify-orders.csv", tmp_path, preset="shopify")
    assert net(records) == {"#1001": 5_940, "#1002": 1_695, "#1003": 0}
    assert (job.progress.orders, job.progress.unwanted, job.remarks.most_common()) == (5, 2, [])
    first = records[0]
    assert (first["user_id"], first["currency"], first["occurred_at"]) == ("ada@example.com", "EUR", micros(FIRST))
    assert items(first) == [("SO-1", 1.0, 24_500_000), ("HA-2", 2.0, 15_000_000)]
    assert first["user_data"]["meta_hashes"].keys() >= {"em", "ph"}
    assert [item["item_id"] for item in records[3]["items"]] == ["Coat"]
    assert records[4]["occurred_at"] == micros("2026-11-29T08:00:00+01:00")


def test_woocommerce_with_columns_of_line_items(tmp_path: Path) -> None:
    path = EXPORTS / "woocommerce-orders.csv"
    records, job = imported(path, tmp_path, preset="woocommerce", timezone="Europe/Berlin")
    assert net(records) == {"731": 5_940, "732": 1_695, "734": 0}
    assert (job.progress.unwanted, job.remarks.most_common()) == (1, [])
    assert items(records[0]) == [("SO-1", 1.0, 24_500_000), ("12", 2.0, 15_000_000)]
    assert records[0]["items"][1]["item_name"] == "Hat: wool"
    assert [records[place]["occurred_at"] for place in (0, 1)] == [micros(FIRST), micros(SECOND)]


def test_woocommerce_with_a_row_for_each_item(tmp_path: Path) -> None:
    path = EXPORTS / "woocommerce-items.csv"
    records, _ = imported(path, tmp_path, preset="woocommerce", timezone="Europe/Berlin")
    assert net(records) == {"731": 5_940, "732": 2_695}
    assert items(records[0]) == [("SO-1", 1.0, None), ("HA-2", 2.0, None)]


def test_magento_with_a_row_for_each_item(tmp_path: Path) -> None:
    records, job = imported(EXPORTS / "magento-items.csv", tmp_path, preset="magento", timezone="UTC")
    assert net(records) == {"000000101": 5_940, "000000102": 1_695}
    assert items(records[0]) == [("SO-1", 1.0, 24_500_000), ("HA-2", 2.0, 15_000_000)]
    assert records[0]["occurred_at"] == micros(FIRST)
    assert job.remarks.most_common() == []


def test_magento_as_the_grid_exports_it(tmp_path: Path) -> None:
    path = EXPORTS / "magento-grid.csv"
    options: dict[str, Any] = {"preset": "magento", "timezone": "Europe/Berlin", "constant": ["currency=EUR"]}
    records, _ = imported(path, tmp_path, **options)
    assert net(records) == {"000000101": 5_940, "000000102": 0}
    assert [records[place]["occurred_at"] for place in (0, 1)] == [micros(FIRST), micros(SECOND)]


def test_google_ads_takes_the_zone_of_the_file(tmp_path: Path) -> None:
    records, _ = imported(EXPORTS / "google-ads-conversions.csv", tmp_path, preset="google-ads")
    assert [record["occurred_at"] for record in records] == [
        micros(FIRST), micros(SECOND), micros("2026-11-28T12:00:00-05:00")
    ]  # fmt: skip
    assert net(records) == {"crm-1": 5_940, "crm-2": 2_695, "crm-3": 124_900}
    assert [record["conversion_type"] for record in records] == ["qualified lead", "sale", "sale"]
    assert records[0]["click_ids"] == {"gclid": "Cj0KCQiA_click-1"}
    records, _ = imported(EXPORTS / "google-ads-conversions.csv", tmp_path, preset="google-ads", timezone="UTC")
    assert records[0]["occurred_at"] == micros("2026-11-28T04:01:00+00:00")


def test_meta_leads_are_conversions_and_touchpoints(tmp_path: Path) -> None:
    records, _ = imported(EXPORTS / "meta-leads.csv", tmp_path, preset="meta-ads")
    assert [(record["event_id"], record["user_id"], record["occurred_at"]) for record in records][:2] == [
        ("4280180252203503", "ada@example.com", micros(FIRST)), ("582128261560337", "+491709876543", micros(SECOND))
    ]  # fmt: skip
    assert {record["conversion_type"] for record in records} == {"lead"}
    touches, job = imported(EXPORTS / "meta-leads.csv", tmp_path, preset="meta-ads", kind="touchpoint")
    assert [touch["user_id"] for touch in touches] == ["ada@example.com", "+491709876543"]
    assert touches[0]["campaign_id"] == "120232362357820199"
    assert {(touch["platform"], touch["channel"]) for touch in touches} == {("meta", "paid_social")}
    assert job.progress.unwanted == 1


def test_ga4_visits_are_touchpoints(tmp_path: Path) -> None:
    (touch,), job = imported(EXPORTS / "ga4-events.jsonl", tmp_path, preset="ga4")
    assert (touch["anonymous_id"], touch["channel"], touch["platform"]) == ("1234.5678", "paid_search", "google")
    assert (touch["occurred_at"], touch["click_ids"]) == (1_795_856_160_000_000, {"gclid": "Cj0KCQiA_click-1"})
    assert job.progress.unwanted == 4


def test_ga4_purchases_are_conversions(tmp_path: Path) -> None:
    records, _ = imported(EXPORTS / "ga4-events.jsonl", tmp_path, preset="ga4", kind="conversion")
    first, second = records
    assert (first["event_id"], first["value_micros"], first["currency"]) == ("1001", 59_400_000, "EUR")
    assert (first["user_id"], first["ga_client_id"], first["ga_session_id"]) == ("u-17", "1234.5678", "1795856160")
    assert items(first) == [("SO-1", 1.0, 24_500_000), ("HA-2", 2.0, 15_000_000)]
    assert first["items"][0]["item_brand"] is None
    assert (second["order_id"], second["value_micros"]) == (None, 27_000_000)
    assert second["event_id"].startswith("import-")


def test_ids_of_ga4_events_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    lines = (EXPORTS / "ga4-events.jsonl").read_text().splitlines()
    path = tmp_path / "turned.jsonl"
    path.write_text("\n".join(reversed(lines)))
    ids = [
        {record["event_id"] for record in imported(each, tmp_path, preset="ga4", kind="conversion")[0]}
        for each in (EXPORTS / "ga4-events.jsonl", path)
    ]
    assert ids[0] == ids[1]


def test_the_command_line_goes_before_the_preset(tmp_path: Path) -> None:
    path = EXPORTS / "shopify-orders.csv"
    records, _ = imported(path, tmp_path, preset="shopify", where=["Financial Status=pending"], map=["user_id=Id"])
    assert [(record["order_id"], record["user_id"]) for record in records] == [("#1004", "5671004")]
    mapping = tmp_path / "m.yaml"
    mapping.write_text("preset: shopify\nwhere: [Source=web]\nconstant: {conversion_type: order}\n")
    records, _ = imported(path, tmp_path, mapping=mapping)
    assert {record["conversion_type"] for record in records} == {"order"}
    assert len(net(records)) == 3


@pytest.mark.parametrize("name", presets.NAMES)
def test_every_preset_builds_a_plan_for_each_kind_and_cites_where_its_columns_come_from(name: str) -> None:
    text = (files("attributary.producers.importer.presets") / f"{name}.yaml").read_text("utf-8")
    assert "read on 2026-11-30 in\n#   https://" in text
    for kind in yaml.safe_load(text)["kinds"]:
        assert isinstance(plan_from(presets.fitted(presets.preset(name, kind), None), {}), ImportPlan)


def test_the_command_line_knows_every_preset() -> None:
    assert get_args(Preset) == presets.NAMES


def test_a_file_that_is_no_such_export_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="preset shopify: the file has no column Name; it has order_id"):
        opened(EXPORTS / "woocommerce-items.csv", preset="shopify")
    with pytest.raises(PlanError, match="preset shopify: reads conversion, not touchpoint"):
        opened(EXPORTS / "shopify-orders.csv", preset="shopify", kind="touchpoint")
    mapping = tmp_path / "m.yaml"
    mapping.write_text("preset: etsy\n")
    with pytest.raises(PlanError, match="preset etsy: there is none"):
        opened(EXPORTS / "shopify-orders.csv", mapping=mapping)


@pytest.mark.parametrize(
    ("name", "preset", "options"),
    [
        ("shopify-orders.csv", "shopify", ()),
        ("woocommerce-orders.csv", "woocommerce", ("--timezone", "Europe/Berlin")),
        ("magento-items.csv", "magento", ("--timezone", "UTC")),
        ("google-ads-conversions.csv", "google-ads", ()),
        ("meta-leads.csv", "meta-ads", ("--kind", "touchpoint")),
        ("ga4-events.jsonl", "ga4", ("--kind", "conversion")),
    ],
)
def test_the_command_takes_the_sample_of_each_preset(
    name: str, preset: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes((EXPORTS / name).read_bytes())
    result = CliRunner().invoke(
        app, ["produce", str(path), "--preset", preset, "--tenant", "acme", "--dry-run", *options]
    )
    assert result.exit_code == 0, result.output
    assert " 0 rejected" in result.stdout


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("name:Socks|sku:SO-1|quantity:2|total:30.00", [("SO-1", 2.0, 15_000_000)]),
        ("id:3|name:Socks|sku:SO-1|quantity:1|total:9.50;id:4|name:Hat|sku:HA-2|quantity:2|total:10",
         [("SO-1", 1.0, 9_500_000), ("HA-2", 2.0, 5_000_000)]),
        ("name:A; or B|sku:X|quantity:1|total:1", [("X", 1.0, 1_000_000)]),
        ("name:Third|sku:T|quantity:3|total:10", [("T", 3.0, None)]),
        ("name:Gone|sku:G|quantity:0|total:0", []),
        ('[{"sku": "J", "quantity": 2, "total": "3.00"}]', [("J", 2.0, 1_500_000)]),
        ('{"sku": "J", "quantity": 1, "sub_total": 3}', [("J", 1.0, 3_000_000)]),
        ("name:Only a name|quantity:1", [("Only a name", 1.0, None)]),
    ],
)  # fmt: skip
def test_lines_in_one_cell(tmp_path: Path, cell: str, expected: list[tuple[str, float, int | None]]) -> None:
    path = tmp_path / "orders.csv"
    quoted = '"' + cell.replace('"', '""') + '"'
    path.write_text(f"order_id,order_date,status,order_total,order_currency,billing_email,line_items\n"
                    f"1,2026-11-28 10:01:00,completed,30,EUR,ada@example.com,{quoted}\n")  # fmt: skip
    (record,), _ = imported(path, tmp_path, preset="woocommerce", timezone="Europe/Berlin")
    assert items(record) == expected


@pytest.mark.parametrize("cell", ["name:Socks|quantity:two", "[1]", "[", "quantity:1|total:x|sku:A"])
def test_lines_that_cannot_be_read_are_refused(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("order_id,order_date,status,order_total,order_currency,billing_email,line_items\n"
                    f"1,2026-11-28 10:01:00,completed,30,EUR,ada@example.com,{cell}\n")  # fmt: skip
    source, _, mapper, _ = opened(path, preset="woocommerce", timezone="Europe/Berlin")
    with source, pytest.raises(RowRefused) as caught:
        mapper.record(next(source.rows()))
    assert (caught.value.field, caught.value.column) == ("items", "line_items")
