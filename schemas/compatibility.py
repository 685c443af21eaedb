"""The gate for schema changes: ``python -m attributary.schemas.compatibility`` (part of ``make check``).

Invariant: every published version can be read by the working file, and the working file's data by the last published
version (Avro's FULL). Published files never change (a frozen sha256 each). What a fingerprint does not see (logical
types, defaults) never changes in place.

One exception, from before the first release: results of versions 1 and 2 are not resolved but converted
(`result_layout`), so versions of `result` are compared from the third on.

``--publish`` freezes the working files that differ from their last published version as the next one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType

from .resolution import breaks, named_types
from .result_layout import FIRST_COMPACT_VERSION
from .samples import sample
from .schema_catalog import FOLDER, NAMES, UnsafeSchemaError, crc64, published_paths, runtime_form

_TROUBLE = (EOFError, LookupError, ValueError, TypeError, AttributeError, SchemaResolutionError)
_NO_SCHEMA = (SchemaParseException, UnknownType, UnsafeSchemaError, LookupError, ValueError, TypeError)
_MANIFEST = "published.json"


def problems(folder: Path = FOLDER) -> list[str]:
    """Return what is wrong with the schema files of a folder, each as one sentence that names record and field."""
    manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
    found = list(_frozen_problems(folder, manifest))
    for name in NAMES:
        working = json.loads((folder / f"{name}.avsc").read_text("utf-8"))
        found += [f"{name}, field {path}: has no doc" for path in undocumented(working)]
        paths = published_paths(name, folder / "published")
        if not paths:
            found.append(f"{name}: was never published; run the check with --publish")
        for path in paths:
            if name == "result" and int(path.stem) < FIRST_COMPACT_VERSION:
                continue
            old = json.loads(path.read_text("utf-8"))
            found += [
                f"{name}{problem}" for problem in differences(working, old, int(path.stem), last=path is paths[-1])
            ]
    return found


def differences(working: Any, old: Any, version: int, *, last: bool = True) -> Iterator[str]:
    """Yield what a working schema breaks towards a published one.

    Args:
        working: the parsed JSON of the working file.
        old: that of the published version.
        version: its number.
        last: whether it is the last one; only that one must read the working file's data.
    """
    for place, why in breaks(working, old):
        yield f"{_at(place)}: data of version {version} could not be read any more: {why}"
    if last:
        for place, why in breaks(old, working):
            yield f"{_at(place)}: readers with version {version} could not read new data: {why}"
        yield from _in_place(working, old, version)
        yield from _renames(working, old)
    yield from (f": {text}" for text in _second_opinion(working, old, version, both=last))


def undocumented(schema: Any) -> list[str]:
    """Return the fields and records that have no doc."""
    missing = []
    for name, node in named_types(schema).items():
        missing += [] if node.get("doc", "").strip() else [name]
        missing += [f"{name}.{f['name']}" for f in node.get("fields", ()) if not f.get("doc", "").strip()]
    return missing


def _at(place: str) -> str:
    return f", field {place}" if place else ""


def _frozen_problems(folder: Path, manifest: dict[str, str]) -> Iterator[str]:
    present = {f"{name}/{path.name}": path for name in NAMES for path in published_paths(name, folder / "published")}
    for key in sorted(present.keys() ^ manifest.keys()):
        yield f"published/{key}: is {'not in' if key in present else 'missing, but in'} {_MANIFEST}"
    prints: dict[bytes, str] = {}
    for key, path in present.items():
        data = path.read_bytes()
        if key in manifest and hashlib.sha256(data).hexdigest() != manifest[key]:
            yield f"published/{key}: was changed; a published schema is frozen, publish a new version instead"
        twin = prints.setdefault(crc64(json.loads(data)), key)
        if twin != key:
            yield f"published/{key}: has the fingerprint of published/{twin}; consumers cannot tell them apart"


def _in_place(working: Any, old: Any, version: int) -> Iterator[str]:
    """Yield changes that no fingerprint shows: bytes would be read with another meaning, and nothing would notice."""
    before = named_types(old)
    for name, node in named_types(working).items():
        olds = {field["name"]: field for field in before.get(name, {}).get("fields", ())}
        for field in node.get("fields", ()):
            if field["name"] not in olds:
                continue
            was = olds[field["name"]]
            place = f", field {name}.{field['name']}"
            if _logical(field["type"]) != _logical(was["type"]):
                yield f"{place}: logicalType differs from version {version}; add a new field instead"
            if field.get("default", _logical) != was.get("default", _logical):
                yield f"{place}: default differs from version {version}; old and new readers would disagree"


def _logical(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_logical(branch) for branch in schema]
    if isinstance(schema, dict):
        inner = [_logical(schema[key]) for key in ("items", "values") if key in schema]
        return [{key: schema[key] for key in ("logicalType", "precision", "scale") if key in schema}, *inner]
    return None


def _renames(working: Any, old: Any) -> Iterator[str]:
    """Yield fields that go while others of the same type come: with defaults that is allowed, and data is lost."""
    before = named_types(old)
    for name, node in named_types(working).items():
        olds = {field["name"]: field["type"] for field in before.get(name, {}).get("fields", ())}
        news = {field["name"]: field["type"] for field in node.get("fields", ())}
        for gone in sorted(olds.keys() - news.keys()):
            for added in sorted(news.keys() - olds.keys()):
                if olds and news[added] == olds[gone]:
                    yield (
                        f", field {name}.{gone}: looks renamed to {added}; its data would be lost to readers. "
                        "Keep it, or publish the addition and the removal as two versions"
                    )


def _second_opinion(working: Any, old: Any, version: int, *, both: bool) -> Iterator[str]:
    """Yield what fastavro cannot read of samples that take every branch of every union."""
    pairs = [(working, old, f"data of version {version}")]
    if both:
        pairs.append((old, working, f"new data with version {version}"))
    for reader, writer, what in pairs:
        try:
            reads, writes = runtime_form(reader), runtime_form(writer)
        except _NO_SCHEMA as error:
            yield f"is not a valid schema: {error}"
            return
        for branch in range(4):
            out = BytesIO()
            schemaless_writer(out, writes, sample(writer, branch))
            out.seek(0)
            try:
                schemaless_reader(out, writes, reads)
            except _TROUBLE as error:
                yield f"fastavro cannot read {what}: {type(error).__name__}"
                break


def publish(folder: Path = FOLDER) -> list[str]:
    """Freeze every working file with a new fingerprint, new defaults or logical types; return the new files' names."""
    manifest = json.loads((folder / _MANIFEST).read_text("utf-8")) if (folder / _MANIFEST).exists() else {}
    added = []
    for name in NAMES:
        data = (folder / f"{name}.avsc").read_bytes()
        paths = published_paths(name, folder / "published")
        if paths and crc64(json.loads(paths[-1].read_bytes())) == crc64(json.loads(data)):
            continue
        target = folder / "published" / name / f"{len(paths) + 1}.avsc"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        manifest[f"{name}/{target.name}"] = hashlib.sha256(data).hexdigest()
        added.append(f"{name}/{target.name}")
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")
    return added


def main(arguments: list[str]) -> int:
    """Check, or publish and check; return the exit code."""
    if "--publish" in arguments:
        for name in publish():
            sys.stdout.write(f"published {name}\n")
    found = problems()
    for problem in found:
        sys.stderr.write(f"schemas: {problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
