"""Lists reach Postgres as the same arrays in the quick form as in psycopg's own, with the same types and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.array import ListDumper

from attributary.consumers.store.array_parameters import FlatListDumper
from attributary.consumers.store.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_HARD = st.sampled_from(["", "NULL", "null", '"', "\\", '\\"', "{", "}", ",", " ", "\t", "\n", "\x1f", "a\\", "\u2003"])
_INTEGERS = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(scope="module")
def connections(module_database: str) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """Ours, and one as psycopg makes it."""
    with (
        connect(module_database, application_name="tests", autocommit=True) as ours,
        psycopg.connect(module_database, autocommit=True) as plain,
    ):
        yield ours, plain


def asked(connection: psycopg.Connection, items: list[Any], kind: str) -> Any:
    row = connection.execute(f"SELECT %s::{kind}[]".encode(), [items]).fetchone()
    return row and row[0]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.one_of(_TEXT, _HARD, st.none()), max_size=12))
def test_text_is_read_back(connections: tuple[psycopg.Connection, psycopg.Connection], items: list[str | None]) -> None:
    assert asked(connections[0], items, "text") == items == asked(connections[1], items, "text")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.one_of(_INTEGERS, st.none()), max_size=12))
def test_integers_are_read_back(
    connections: tuple[psycopg.Connection, psycopg.Connection], items: list[int | None]
) -> None:
    assert asked(connections[0], items, "int8") == items


@pytest.mark.parametrize(
    ("items", "kind"),
    [([True, False], "bool"), ([1.5, None], "float8"), ([["a", "b"], ["c", '"']], "text"), ([[1, 2], [3, 4]], "int8")],
)
def test_other_lists_are_written_as_before(
    connections: tuple[psycopg.Connection, psycopg.Connection], items: list[Any], kind: str
) -> None:
    assert asked(connections[0], items, kind) == items


@pytest.mark.parametrize("items", [["a\0b"], ["a", "\0"], ["\ud800"], ["a", 1]])
def test_what_postgres_cannot_hold_is_refused_as_before(
    connections: tuple[psycopg.Connection, psycopg.Connection], items: list[Any]
) -> None:
    with pytest.raises((psycopg.Error, UnicodeEncodeError)) as plain:
        asked(connections[1], items, "text")
    with pytest.raises(plain.type, match=r".*") as ours:
        asked(connections[0], items, "text")
    assert str(ours.value) == str(plain.value)


@pytest.mark.parametrize("items", [["a"], [1], [2**40], [None, "a"], [], [None], [True], [2**70]])
def test_the_type_that_postgres_is_told_is_the_same(items: list[Any]) -> None:
    """A prepared statement is known by the types of its parameters."""
    found = [dumper(list, Transformer()).upgrade(items, PyFormat.TEXT) for dumper in (ListDumper, FlatListDumper)]
    assert found[0].oid == found[1].oid
    assert found[0].get_key(items, PyFormat.TEXT) == found[1].get_key(items, PyFormat.TEXT)


def test_a_database_of_another_encoding_is_spoken_to_in_utf8(
    connections: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    assert connections[0].info.encoding == "utf-8"
