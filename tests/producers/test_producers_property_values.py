"""F8, F19: values of free properties: a list costs no row, and what is refused is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.producers.test_producers_imports_cases import NOON, imported

if TYPE_CHECKING:
    from pathlib import Path


def row(tmp_path: Path, properties: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    path = tmp_path / "orders.jsonl"
    path.write_text(f'{{"event_id":"e","user_id":"u7","value":1,"occurred_at":"{NOON}","properties":{properties}}}\n')
    return imported(path)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('{"tags": ["a", "b"]}', '["a","b"]'),
        ('{"tags": []}', "[]"),
        ('{"tags": {"size": 4, "new": true}}', '{"size":4,"new":true}'),
        ('{"tags": [{"de": "schön"}]}', '[{"de":"schön"}]'),
        ('{"tags": 45}', "45"),
        ('{"tags": true}', "true"),
    ],
)
def test_f8_a_list_or_an_object_in_properties_is_kept_as_its_json(tmp_path: Path, written: str, kept: str) -> None:
    records, rejects = row(tmp_path, written)
    assert rejects == []
    assert records[0]["properties"] == {"tags": kept}
    assert json.loads(kept) == json.loads(written)["tags"]


def test_f8_a_column_with_a_list_may_be_mapped_to_a_property(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(f'{{"event_id":"e","user_id":"u7","value":1,"occurred_at":"{NOON}","tags":["a"]}}\n')
    records, rejects = imported(path, map=["properties.tags=tags"])
    assert (records[0]["properties"], rejects) == ({"tags": '["a"]'}, [])


def test_f19_a_property_that_cannot_be_a_text_is_named(tmp_path: Path) -> None:
    records, rejects = row(tmp_path, '{"good": "x", "size": 12345678901234567890.0}')
    assert records == []
    assert rejects[0]["field"] == "properties"
    assert rejects[0]["rule"].startswith("size must be a text: a number of this size loses digits")
