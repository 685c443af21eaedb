"""The catalogue of statements: every SQL text of the store, collected from the modules, so none can be forgotten.

A text is found as a constant of a module (composed ones as they are when the module was imported) or as a literal in a
function. Its name is the module's and, where it has one, the constant's; a literal is named by the function it stands
in. Parts of statements that begin like one are in the catalogue, too: the list of offenders names them as `part`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql

from attributary.consumers import store

if TYPE_CHECKING:
    from types import ModuleType

_BEGINS = re.compile(r"\s*(--[^\n]*\n\s*)*(WITH|SELECT|INSERT|UPDATE|DELETE|MERGE)\b")
WATCHED = (
    "audit", "deliveries", "events", "jobs", "models", "offsets", "repair", "results.results", "results.versions",
    "retention", "session", "tenants",
)  # fmt: skip
"""What of the store is held to the rules: what stages and jobs execute; reports, access and erasures are not yet."""
_COMMENT = re.compile(r"--[^\n]*")
_PART = re.compile(r"(?:'[^']*'|[^';])+")  # up to a semicolon that stands in no text


class Statement(NamedTuple):
    """One SQL text.

    Attributes:
        name: module and constant, `events.stitch_sql:LOCK_PEOPLE`; one of several in a text has a number behind.
        text: with psycopg's placeholders.
    """

    name: str
    text: str


def statements() -> list[Statement]:
    """Return all statements, by name; equal texts once."""
    found: dict[str, str] = {}
    for module in _modules():
        short = module.__name__.removeprefix("attributary.consumers.store.")
        for name, text in (*_constants(module), *_literals(module)):
            for number, part in enumerate(_split(text)):
                found.setdefault(part, f"{short}:{name}{f'#{number + 1}' if number else ''}")
    return sorted(Statement(name, text) for text, name in found.items())


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(store.__path__, "attributary.consumers.store."):
        below = found.name.removeprefix("attributary.consumers.store.")
        if not found.ispkg and any(f"{below}.".startswith(f"{name}.") for name in WATCHED):
            yield importlib.import_module(found.name)


def _constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in sorted(vars(module).items()):
        for place, text in _texts(name, value):
            if _BEGINS.match(text):
                yield place, text


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, (sql.SQL, sql.Composed)):
        yield name, value.as_string()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(f"{name}[{key}]", part)
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        for number, part in enumerate(value):
            yield from _texts(f"{name}[{number}]", part)


def _literals(module: ModuleType) -> Iterator[tuple[str, str]]:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and _BEGINS.match(node.value):
                    yield f"{function.name}()", node.value


def _split(text: str) -> Iterator[str]:
    """Yield the statements of a text, without comments and blank lines."""
    for part in _PART.findall(_COMMENT.sub("", text)):
        lines = [line.rstrip() for line in part.splitlines() if line.strip()]
        if lines and _BEGINS.match("\n".join(lines)):
            yield "\n".join(lines)


_PARAMETER = re.compile(r"(?P<tenant>\btenant_id = )?%(\((?P<name>\w+)\))?(?P<end>[sbt%])")


def with_one_tenant(text: str) -> str:
    """Return a statement with numbered parameters, and a constant for each one that is a tenant.

    `EXPLAIN (GENERIC_PLAN)` takes it without values; which partitions a tenant touches is then decided in the plan.
    """
    numbers: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        if found["end"] == "%":
            return "%"
        if found["name"] in {"tenant", "tenant_id"} or (found["tenant"] and found["name"] is None):
            return f"{found['tenant'] or ''}'acme'"
        name = found["name"] or f"at {found.start()}"
        return f"{found['tenant'] or ''}${numbers.setdefault(name, len(numbers) + 1)}"

    return _PARAMETER.sub(place, text)


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


RULES = {
    # A distributed INSERT takes immutable functions only: use excluded.updated_at.
    "clock": _rule(r"DO UPDATE SET(?:(?!\bRETURNING\b|\bWHERE\b).)*\b(now\(\)|clock_timestamp\(\))"),
    # They mean something on one server only.
    "xmin": _rule(r"(?<![\w.])(\w+\.)?(xmin|ctid)\b|\bpg_locks\b"),
    # The planner of a distributed Postgres refuses rows without a table there.
    "values": _rule(r"UNION( ALL)?\s*\(?\s*VALUES|LATERAL\s*\(\s*VALUES"),
    "empty": _rule(r"SELECT\s+FROM\b"),
}
"""What a statement must not hold, so that tenants can be divided over several servers one day, by the rule's name."""
