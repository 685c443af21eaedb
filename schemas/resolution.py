"""Can a reader with one schema read what a writer with another wrote? Schema resolution of Avro 1.12, as a check.

Invariant: `breaks` returns nothing exactly when every record of the writer's schema can be read. It is stricter than
the specification at unions only: there every branch of the writer counts, whether or not it is ever used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# Writer's type to the reader's types that it may be read as.
_PROMOTIONS = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class Break(NamedTuple):
    """One place where reading fails."""

    path: str  # the field, with dots; empty for the record itself
    why: str


def named_types(schema: Any) -> dict[str, Any]:
    """Return the records, enums and fixed types inside a schema by their unqualified name."""
    found: dict[str, Any] = {}
    if isinstance(schema, list):
        for branch in schema:
            found |= named_types(branch)
    elif isinstance(schema, dict):
        if "name" in schema and kind_of(schema) in {"record", "enum", "fixed"}:
            found[_short(schema["name"])] = schema
        for part in (*(field["type"] for field in schema.get("fields", ())), schema.get("items"), schema.get("values")):
            found |= named_types(part)
    return found


def kind_of(schema: Any) -> str:
    """Return what a schema is: a primitive, record, enum, fixed, array, map or union; a name stays a name."""
    if isinstance(schema, list):
        return "union"
    if isinstance(schema, dict):
        return kind_of(schema["type"])
    return str(schema)


def breaks(reader: Any, writer: Any) -> list[Break]:
    """Return every place where a reader fails on data of a writer.

    Args:
        reader: the parsed JSON of the schema that reads.
        writer: the parsed JSON of the schema that wrote.
    """
    return list(_Resolution(named_types(reader), named_types(writer)).compare(reader, writer, ""))


def _short(name: str) -> str:
    return name.rpartition(".")[2]


class _Resolution:
    """Walks two schemas side by side."""

    def __init__(self, reader_names: Mapping[str, Any], writer_names: Mapping[str, Any]) -> None:
        self._reader_names, self._writer_names = reader_names, writer_names

    def compare(self, reader: Any, writer: Any, path: str) -> Iterator[Break]:
        reader, writer = _look_up(reader, self._reader_names), _look_up(writer, self._writer_names)
        read, wrote = kind_of(reader), kind_of(writer)
        if wrote == "union":
            for branch in writer:
                yield from self.compare(reader, branch, path)
        elif read == "union":
            if not any(not list(self.compare(branch, writer, path)) for branch in reader):
                yield Break(path, f"{_spell(writer)} is in none of the reader's branches ({_spell(reader)})")
        elif wrote in _PRIMITIVES or read in _PRIMITIVES:
            if read != wrote and read not in _PROMOTIONS.get(wrote, ()):
                yield Break(path, f"{_spell(writer)} cannot be read as {_spell(reader)}")
        elif read != wrote:
            yield Break(path, f"{_spell(writer)} cannot be read as {_spell(reader)}")
        elif read == "array":
            yield from self.compare(reader["items"], writer["items"], f"{path}[]")
        elif read == "map":
            yield from self.compare(reader["values"], writer["values"], f"{path}{{}}")
        else:
            yield from self._named(reader, writer, path)

    def _named(self, reader: Any, writer: Any, path: str) -> Iterator[Break]:
        if _short(reader["name"]) != _short(writer["name"]):
            yield Break(path, f"{_spell(writer)} cannot be read as {_spell(reader)}: another name")
        elif kind_of(reader) == "enum":
            unknown = sorted(set(writer["symbols"]) - set(reader["symbols"]))
            if unknown and "default" not in reader:
                yield Break(path, f"the reader does not know the symbol {unknown[0]} and has no default")
        elif kind_of(reader) == "fixed":
            if reader["size"] != writer["size"]:
                yield Break(path, f"{writer['size']} bytes cannot be read as {reader['size']}")
        else:
            yield from self._fields(reader, writer, path)

    def _fields(self, reader: Any, writer: Any, path: str) -> Iterator[Break]:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            place = f"{path}.{field['name']}" if path else field["name"]
            if field["name"] in written:
                yield from self.compare(field["type"], written[field["name"]]["type"], place)
            elif "default" not in field:
                yield Break(place, "the writer has no such field and the reader has no default for it")


def _look_up(schema: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(schema, str) and schema not in _PRIMITIVES:
        return names.get(_short(schema), schema)
    return schema


def _spell(schema: Any) -> str:
    if isinstance(schema, list):
        return " | ".join(map(_spell, schema))
    if isinstance(schema, dict) and "name" in schema:
        return f"{kind_of(schema)} {_short(schema['name'])}"
    return kind_of(schema)
