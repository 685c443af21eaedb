"""Sample records of a schema, for the compatibility check and the documentation.

Invariant: over the branches 0, 1, 2, ... the samples take every branch of every union.
"""

from __future__ import annotations

from typing import Any

from .resolution import kind_of, named_types

_PRIMITIVES: dict[str, Any] = {
    "null": None, "boolean": True, "int": 7, "long": 2**40, "float": 0.5, "double": 0.1, "bytes": b"x", "string": "x",
}  # fmt: skip


def sample(schema: Any, branch: int) -> Any:
    """Return a value of a schema.

    Args:
        schema: the parsed JSON of the schema.
        branch: which branch of each union to take; the last one when there are fewer.
    """
    return _sample(schema, branch, named_types(schema))


def _sample(schema: Any, branch: int, names: dict[str, Any]) -> Any:
    kind = kind_of(schema)
    if kind in _PRIMITIVES:
        return _PRIMITIVES[kind]
    match kind:
        case "union":
            value = _sample(schema[min(branch, len(schema) - 1)], branch, names)
        case "record":
            value = {field["name"]: _sample(field["type"], branch, names) for field in schema["fields"]}
        case "array":
            value = [_sample(schema["items"], branch, names)]
        case "map":
            value = {"a": _sample(schema["values"], branch, names)}
        case "enum":
            value = schema["symbols"][min(branch, len(schema["symbols"]) - 1)]
        case "fixed":
            value = bytes(schema["size"])
        case _:
            value = _sample(names[kind.rpartition(".")[2]], branch, names)
    return value
