"""Rows of a batch added up by their keys, as arrays, and arrays as parameters of a statement: pure.

Invariant: sums are exact. What could leave 64 bits is refused as Postgres would refuse it, never wrapped.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import errors, postgres
from psycopg.adapt import Dumper
from psycopg.pq import Format

Integers = npt.NDArray[np.int64]

_MOST_KEYS = 1 << 62
_MOST = float(1 << 62)  # of a sum, with some room for the error of a float
_HEAD = struct.Struct("!iiIii")  # dimensions, whether there are nulls, type, length, number of the first one
_NO_DIMENSION = 12  # bytes of the head of an empty array
_ITEM = np.dtype([("size", ">i4"), ("value", ">i8")])


class Codes(dict[Any, int]):
    """Numbers of things, from 0 in the order in which they are first seen."""

    def __missing__(self, key: Any) -> int:
        """Give the next number."""
        number = self[key] = len(self)
        return number


class Packed(bytes):
    """A bigint[] in Postgres's binary form."""


class PackedIds(bytes):
    """A uuid[] in Postgres's binary form."""


class _PackedDumper(Dumper):
    format = Format.BINARY
    oid = postgres.types["int8"].array_oid

    def dump(self, obj: bytes) -> bytes:
        return obj


class _PackedIdsDumper(_PackedDumper):
    oid = postgres.types["uuid"].array_oid


def use_packed(connection: psycopg.Connection) -> None:
    """Let a connection take packed arrays as parameters."""
    connection.adapters.register_dumper(Packed, _PackedDumper)
    connection.adapters.register_dumper(PackedIds, _PackedIdsDumper)


def packed(numbers: Integers) -> Packed:
    """Return integers of any shape as one flat bigint[]."""
    items = np.empty(numbers.size, _ITEM)
    items["size"], items["value"] = 8, numbers.ravel()
    return Packed(_head("int8", numbers.size) + items.tobytes())


def packed_ids(ids: list[bytes]) -> PackedIds:
    """Return ids of 16 bytes as uuid[]."""
    return PackedIds(_head("uuid", len(ids)) + b"".join([b"\0\0\0\x10" + each for each in ids]))


def _head(kind: str, length: int) -> bytes:
    head = _HEAD.pack(min(length, 1), 0, postgres.types[kind].oid, length, 1)
    return head if length else head[:_NO_DIMENSION]


def integers(values: Any) -> Integers:
    """Return a list of integers as an array.

    Raises:
        psycopg.errors.NumericValueOutOfRange: one of them needs more than 64 bits.
    """
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise errors.NumericValueOutOfRange("a number of the roll-up needs more than 64 bits") from error


def grouped(*keys: Integers) -> tuple[Integers, Integers]:
    """Return the order in which rows with equal keys stand together, the first key first, and where each group begins.

    Args:
        keys: columns of one length.
    """
    key, top = np.zeros(len(keys[0]), np.int64), 1
    if not len(key):
        return key, key
    for column in keys:
        low = int(column.min())
        span = int(column.max()) - low + 1
        if top * span > _MOST_KEYS:
            key = np.unique(key, return_inverse=True)[1]
            top = len(key)
        key = key * span + (column - low)
        top *= span
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    return order, np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def summed(values: Integers, starts: Integers) -> Integers:
    """Return the sums of groups that stand one after the other.

    Args:
        values: rows, or rows of columns.
        starts: where each group begins, at least one.

    Raises:
        psycopg.errors.NumericValueOutOfRange: a sum could need more than 64 bits.
    """
    if not len(starts):
        return values[:0]
    if int(np.abs(values).max(initial=0)) > (1 << 62) // len(values) and (
        np.abs(values.astype(float)).sum(axis=0).max() > _MOST
    ):
        raise errors.NumericValueOutOfRange("a sum of the roll-up needs more than 64 bits")
    return np.asarray(np.add.reduceat(values, starts, axis=0), np.int64)


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """Return the numbers of ranges one after the other, each from its start on."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths), np.int64)


class Texts:
    """Texts by the numbers of what has them.

    Args:
        known: texts of each number.
        begin: the first text that tells rows apart.
    """

    def __init__(self, known: Sequence[tuple[str, ...]], begin: int = 0) -> None:
        self._known, self._begin = known, begin

    def column(self, numbers: Integers, place: int) -> list[str]:
        """Return one text of each row."""
        texts = [each[place] for each in self._known]
        return [texts[number] for number in numbers.tolist()]

    def pieces(self, numbers: Integers) -> list[bytes]:
        """Return what the texts add to the hashes of rows: each with its length, so that no two rows have one."""
        pieces = [
            "".join([f"{len(text)}:{text}" for text in each[self._begin :]]).encode("utf-8", "surrogatepass")
            for each in self._known
        ]
        return [pieces[number] for number in numbers.tolist()]


def numerals(numbers: Integers) -> list[bytes]:
    """Return what a number adds to the hashes of rows."""
    return [b"%d;" % number for number in numbers.tolist()]


def hashes(*pieces: Sequence[bytes]) -> list[bytes]:
    """Return the MD5 of each row."""
    return [md5(b"".join(row), usedforsecurity=False).digest() for row in zip(*pieces, strict=True)]


class Rows(NamedTuple):
    """Rows of one table: columns of keys, and sums by slot."""

    tenants: Sequence[str]
    ids: list[bytes]  # MD5 of the keys
    keys: Mapping[str, Sequence[Any]]
    sums: Mapping[str, Integers]  # a row of slots each, or one number

    def chosen(self, places: Integers) -> Rows:
        """Return some of the rows."""
        if len(places) == len(self.ids):
            return self
        at = places.tolist()
        return Rows(
            [self.tenants[place] for place in at], [self.ids[place] for place in at],
            {name: [column[place] for place in at] for name, column in self.keys.items()},
            {name: column[places] for name, column in self.sums.items()},
        )  # fmt: skip
