from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attributary.schemas import compatibility
from attributary.schemas.compatibility import differences, problems, publish, undocumented
from attributary.schemas.resolution import breaks
from attributary.schemas.schema_catalog import FOLDER, NAMES, crc64, current_schemas, known_schemas

RECORD: dict[str, Any] = {
    "type": "record",
    "name": "Thing",
    "doc": "A thing.",
    "fields": [
        {"name": "id", "type": "string", "doc": "Its id."},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "When."},
        {"name": "note", "type": ["null", "string"], "doc": "A note.", "default": None},
        {
            "name": "state",
            "type": {"type": "enum", "name": "State", "doc": "A state.", "symbols": ["ON", "OFF"]},
            "doc": "Its state.",
        },
        {
            "name": "parts",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Part",
                    "doc": "A part.",
                    "fields": [{"name": "size", "type": "int", "doc": "Size.", "default": 1}],
                },
            },
            "doc": "Parts.",
        },
    ],
}


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in schema["fields"] if entry["name"] == name)


def drop(schema: dict[str, Any], name: str) -> None:
    schema["fields"].remove(field(schema, name))


def add(schema: dict[str, Any], entry: dict[str, Any]) -> None:
    schema["fields"].append(entry)


def part(schema: dict[str, Any]) -> dict[str, Any]:
    items: dict[str, Any] = field(schema, "parts")["type"]["items"]
    return items


BREAKING: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "removed field without default": (lambda s: drop(s, "id"), "field id: readers with version 1 could not read"),
    "added field without default": (
        lambda s: add(s, {"name": "extra", "type": "string"}),
        "field extra: data of version 1 could not be read",
    ),
    "changed type": (lambda s: field(s, "id").update(type="long"), "field id: data of version 1"),
    "widened type": (lambda s: field(s, "at").update(type="double"), "field at: readers with version 1"),
    "nullable made plain": (lambda s: field(s, "note").update(type="string", default=""), "field note"),
    "plain made nullable": (lambda s: field(s, "id").update(type=["null", "string"]), "field id: readers"),
    "renamed field": (lambda s: field(s, "id").update(name="key"), "field key: data of version 1"),
    "renamed field with default": (
        lambda s: field(s, "note").update(name="remark"),
        "field Thing.note: looks renamed to remark",
    ),
    "renamed enum": (lambda s: field(s, "state")["type"].update(name="Status"), "field state"),
    "removed symbol": (lambda s: field(s, "state")["type"].update(symbols=["ON"]), "does not know the symbol OFF"),
    "added symbol": (lambda s: field(s, "state")["type"].update(symbols=["ON", "OFF", "IDLE"]), "symbol IDLE"),
    "nested type change": (lambda s: field(part(s), "size").update(type="string"), "field parts[].size"),
    "invalid default": (lambda s: field(part(s), "size").update(default="x"), "is not a valid schema"),
    "changed logicalType": (
        lambda s: field(s, "at")["type"].update(logicalType="timestamp-millis"),
        "field Thing.at: logicalType differs",
    ),
    "removed logicalType": (lambda s: field(s, "at").update(type="long"), "field Thing.at: logicalType differs"),
    "changed default": (lambda s: field(part(s), "size").update(default=2), "field Part.size: default differs"),
    "removed default": (lambda s: field(s, "note").pop("default"), "field Thing.note: default differs"),
    "renamed record": (lambda s: s.update(name="Gadget"), "another name"),
}


@pytest.mark.parametrize("case", BREAKING)
def test_a_breaking_change_is_named(case: str) -> None:
    change, text = BREAKING[case]
    working = copy.deepcopy(RECORD)
    change(working)
    found = list(differences(working, RECORD, 1))
    assert any(text in problem for problem in found), found


@pytest.mark.parametrize(
    "change",
    [
        lambda s: add(s, {"name": "extra", "type": ["null", "string"], "default": None}),
        lambda s: drop(s, "note"),
        lambda s: field(s, "id").update(doc="Said better."),
        lambda s: add(part(s), {"name": "colour", "type": "string", "default": ""}),
    ],
)
def test_a_change_that_both_sides_can_read_passes(change: Callable[[dict[str, Any]], object]) -> None:
    working = copy.deepcopy(RECORD)
    change(working)
    assert list(differences(working, RECORD, 1)) == []


def test_older_versions_need_only_stay_readable() -> None:
    working = copy.deepcopy(RECORD)
    drop(working, "id")  # was given up after a version that had a default for it
    assert list(differences(working, RECORD, 1, last=False)) == []


def test_a_promotion_is_read_one_way_only() -> None:
    assert breaks("long", "int") == []
    assert breaks("int", "long")[0].why == "long cannot be read as int"
    assert breaks(["null", "long"], "int") == []
    assert breaks("string", ["null", "string"])[0].why == "null cannot be read as string"


def test_every_bundled_schema_is_published_documented_and_unbroken() -> None:
    assert problems() == []


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_doc(name: str) -> None:
    assert undocumented(current_schemas()[name].source) == []


def test_fingerprints_are_distinct_and_ignore_what_the_runtime_form_leaves_out() -> None:
    schemas = current_schemas()
    assert len({schema.crc64 for schema in schemas.values()}) == len(NAMES)
    assert all(crc64(schema.source) == schema.crc64 for schema in schemas.values())
    assert {schema.crc64 for schema in schemas.values()} <= known_schemas().keys()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "schemas"
    shutil.copytree(FOLDER, copied, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return copied


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    schema = json.loads(path.read_text("utf-8"))
    change(schema)
    path.write_text(json.dumps(schema, indent=2), "utf-8")


def test_a_changed_published_file_is_refused(folder: Path) -> None:
    edit(folder / "published" / "job" / "1.avsc", lambda schema: schema.update(doc="Another."))
    assert problems(folder) == [
        "published/job/1.avsc: was changed; a published schema is frozen, publish a new version instead"
    ]


def test_a_missing_or_unlisted_published_file_is_refused(folder: Path) -> None:
    (folder / "published" / "job" / "1.avsc").rename(folder / "published" / "job" / "2.avsc")
    found = problems(folder)
    assert "published/job/1.avsc: is missing, but in published.json" in found
    assert "published/job/2.avsc: is not in published.json" in found


def test_a_field_without_doc_is_refused(folder: Path) -> None:
    edit(folder / "job.avsc", lambda schema: schema["fields"][0].pop("doc"))
    assert problems(folder) == ["job, field Job.tenant_id: has no doc"]


def test_publishing_freezes_the_next_version(folder: Path) -> None:
    extra = {"name": "priority", "type": ["null", "int"], "doc": "Higher first.", "default": None}
    edit(folder / "job.avsc", lambda schema: add(schema, extra))
    assert publish(folder) == ["job/2.avsc"]
    assert publish(folder) == []
    assert problems(folder) == []


def test_the_command_exits_1_and_names_the_field(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / "touchpoint.avsc", lambda schema: drop(schema, "platform"))
    monkeypatch.setattr(compatibility, "problems", lambda: problems(folder))
    assert compatibility.main([]) == 1
    assert "touchpoint, field platform: readers with version 1 could not read new data" in capsys.readouterr().err
