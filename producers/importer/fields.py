"""Which reader a field of a record has, by its type in the schema.

Invariant: the readers follow schemas/*.avsc; a field that is added there can be imported without a change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attributary.producers.importer import cells
from attributary.producers.importer.amounts import amount_reader
from attributary.producers.importer.plan import ImportPlan, schema_types
from attributary.producers.money import exact_micros

TIMES = frozenset({"occurred_at", "linked_at"})
_SHOWN_NAME = 60  # characters of the name of a property in a message
_SCALARS: Mapping[str, cells.Reader] = {
    "string": cells.text,
    "long": cells.integer,
    "int": cells.integer,
    "double": cells.floating,
    "boolean": cells.boolean,
}


class FieldReaders:
    """The readers of one kind of record.

    Args:
        plan: says how times and amounts are written.
    """

    def __init__(self, plan: ImportPlan) -> None:
        self._types = schema_types(plan.kind)
        self._instant = cells.instant_reader(plan)
        self._amount = amount_reader(plan)

    def reader(self, name: str) -> cells.Reader:
        """Return the reader of a field, or of a part of one: ``click_ids``, ``click_ids.gclid``, ``value``."""
        outer, _, inner = name.partition(".")
        if outer in TIMES:
            return self._instant
        if name == "value":
            return self._amount
        if outer not in self._types:
            return cells.text
        if name == "items.price":
            return self._price
        avro = self._types[outer]
        if inner and avro == {"type": "map", "values": "string"}:
            return cells.text_of_any
        return self._of_type(self._inner_type(avro, inner) if inner else avro)

    def _inner_type(self, avro: Mapping[str, Any], inner: str) -> Any:
        if avro["type"] == "map":
            return avro["values"]
        if avro["type"] == "array":
            avro = avro["items"]
        return next(each["type"] for each in avro["fields"] if each["name"] == inner)

    def _of_type(self, avro: Any) -> cells.Reader:
        if isinstance(avro, list):
            avro = next(branch for branch in avro if branch != "null")
        if isinstance(avro, str):
            return _SCALARS[avro]
        shape = avro["type"]
        if shape == "map":
            return _map_reader(cells.text_of_any if avro["values"] == "string" else self._of_type(avro["values"]))
        if shape == "array":
            return _array_reader(self._of_type(avro["items"]))
        return self._record_reader({each["name"]: self._of_type(each["type"]) for each in avro["fields"]})

    def _record_reader(self, readers: Mapping[str, cells.Reader]) -> cells.Reader:
        def read(cell: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for name, value in cells.mapping(cell).items():
                if cells.is_missing(value):
                    continue
                if name == "price" and "price_micros" in readers:
                    found["price_micros"] = _named(name, self._price, value)
                elif name not in readers:
                    raise ValueError(f"must have no other parts than {', '.join(sorted(readers))}")
                else:
                    found[name] = _named(name, readers[name], value)
            if "item_id" in readers and "item_id" not in found:
                raise ValueError("item_id must be set")
            return found

        return read

    def _price(self, cell: Any) -> int:
        return exact_micros(self._amount(cell))


def _map_reader(read_value: cells.Reader) -> cells.Reader:
    def read(cell: Any) -> dict[str, Any]:
        pairs = ((str(name), value) for name, value in cells.mapping(cell).items() if value is not None)
        return {name: _named(name[:_SHOWN_NAME], read_value, value) for name, value in pairs}

    return read


def _array_reader(read_item: cells.Reader) -> cells.Reader:
    def read(cell: Any) -> list[Any]:
        return [read_item(item) for item in cells.sequence(cell)]

    return read


def _named(name: str, read: cells.Reader, value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
