"""What operators ask about erasures: what one would do, what is left of a person, and who came back with a backup.

Invariant: a preview carries the request out by the very code of the sweeper, and rolls it back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg

from attributary.consumers.erasure.execute import Key, MoreToLockError, execute
from attributary.consumers.maintenance.progress import Progress, no_progress
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.log_reader import LogReader
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.store.erasure.entries import (
    Entry,
    Hashed,
    Hasher,
    RequestRow,
    derived_request,
    identifier_of,
)
from attributary.consumers.store.erasure.ledger import LedgerRow, fetch_entries, store_entries, store_requests
from attributary.consumers.store.erasure.person import rows_with
from attributary.consumers.store.erasure.transaction import ErasureTransaction
from attributary.schemas.codec import Codec
from attributary.schemas.topics import ERASURES, Topic, catalogue, dead_letter_topics

_MAX_TRIES = 10
_BATCH = 5_000
_CHUNK = 1 << 20
_DAY_MS = 86_400_000
_MONEY = """
SELECT currency, sum(conversions)::int8, sum(net_micros)::int8 FROM attribution_removed_totals
WHERE tenant_id = %s AND bucket = '(erased)' GROUP BY currency
"""
_KEYS = """
SELECT tenant_id, journey_key FROM attribution_journeys
WHERE (tenant_id, journey_key) > (%(tenant)s, %(key)s) ORDER BY tenant_id, journey_key LIMIT %(limit)s
"""


class Preview(NamedTuple):
    """What a request would do.

    Attributes:
        removed: rows by table.
        results: results that would be taken back.
        others: conversions of other people, or of the same person since, that would get a version.
        erased: conversions and net micros that would move into ``(erased)``, by currency.
    """

    removed: dict[str, int]
    results: int
    others: int
    erased: dict[str, tuple[int, int]]


class _RolledBackError(Exception):
    """The preview is done."""


def preview(connection: psycopg.Connection, request: RequestRow, hasher: Hasher) -> Preview:
    """Return what a request would do now.

    Args:
        connection: with staging tables, not in a transaction; nothing is written in the end.
        request: as it would arrive now.
        hasher: hashes identifiers.
    """
    more: set[Key] = set()
    found: list[Preview] = []
    for _ in range(_MAX_TRIES):
        try:
            with connection.transaction():
                before = _money(connection, request.tenant_id)
                done = execute(ErasureTransaction(connection, 0.0), request, hasher, "preview", more)
                after = _money(connection, request.tenant_id)
                moved = {
                    currency: (count - before.get(currency, (0, 0))[0], micros - before.get(currency, (0, 0))[1])
                    for currency, (count, micros) in after.items()
                }
                changed = {currency: each for currency, each in moved.items() if each != (0, 0)}
                found.append(Preview(done.removed, len(done.tombstones), len(done.raised), changed))
                raise _RolledBackError  # noqa: TRY301  # the way to roll back a transaction block
        except MoreToLockError as grew:
            more |= set(grew.keys)
        except _RolledBackError:
            return found[-1]
    raise Retry("other writers kept changing the same people", 0.1)


def _money(connection: psycopg.Connection, tenant_id: str) -> dict[str, tuple[int, int]]:
    return {row[0]: (row[1], row[2]) for row in connection.execute(_MONEY, (tenant_id,)).fetchall()}


class Trace(NamedTuple):
    """Where something of a person stands.

    Attributes:
        place: a table, a topic or a file.
        hits: rows, records or lines.
        bound: until when at most, for people; None: for good.
    """

    place: str
    hits: int
    bound: str | None


def forms(identifiers: Iterable[str]) -> list[str]:
    """Return the forms in which identifiers may stand: plain, and as a plain SHA-256."""
    given = [each for each in identifiers if each]
    return given + [hashlib.sha256(each.encode()).hexdigest() for each in given]


def traces_in_tables(
    connection: psycopg.Connection, texts: Sequence[str], tenant_id: str | None = None
) -> Iterator[Trace]:
    """Search every table of ours, of one tenant or of all."""
    bounds = {
        "attribution_tombstones": "until the tombstone was repeated, about 15 days",
        "attribution_training_changes": "until the trainer has retracted the person",
        "attribution_erasure_requests": "until the request is carried out",
    }
    for table, hits in rows_with(connection, texts, tenant_id):
        if hits:
            yield Trace(table, hits, bounds.get(table))


def traces_in_topics(kafka: KafkaSettings, texts: Sequence[str], progress: Progress = no_progress) -> Iterator[Trace]:
    """Search keys, values and headers of every record of every topic, also of dead letters."""
    needles = [text.encode() for text in texts]
    log = LogReader(kafka)
    try:
        for topic in (*catalogue(), *dead_letter_topics()):
            ranges = log.bounds([topic.name])
            hits = 0
            with progress(topic.name, sum(span.stop - span.start for span in ranges.values())) as advance:
                for batch in log.read(ranges, _BATCH):
                    advance(len(batch))
                    for record in batch:
                        parts = (record.key or b"", record.value or b"", *(value or b"" for _, value in record.headers))
                        hits += any(needle in part for part in parts for needle in needles)
            if hits:
                yield Trace(topic.name, hits, _bound(topic))
    finally:
        log.close()


def _bound(topic: Topic) -> str | None:
    """Return how long a record of a topic stays at most."""
    retention = topic.config.get("retention.ms")
    if retention is not None:
        return f"{int(retention) // _DAY_MS} days after it was written"
    lag = topic.config.get("max.compaction.lag.ms")
    return None if lag is None else f"{int(lag) // _DAY_MS} days after its tombstone, when its segment has rolled"


def traces_in_files(paths: Iterable[Path], texts: Sequence[str]) -> Iterator[Trace]:
    """Search files and everything in folders, as bytes, in bounded memory."""
    needles = [text.encode() for text in texts]
    longest = max(map(len, needles), default=1)
    for path in paths:
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        for file in files:
            with file.open("rb") as stream:
                kept, hits = b"", 0
                while chunk := stream.read(_CHUNK):
                    window = kept + chunk
                    hits += any(needle in window for needle in needles)
                    kept = window[1 - longest :] if longest > 1 else b""
            if hits:
                yield Trace(str(file), hits, None)


def ledger_of_topic(kafka: KafkaSettings, codec: Codec) -> Iterator[LedgerRow]:
    """Yield the ledger as its topic holds it, the newest row of each identifier last."""
    log = LogReader(kafka)
    try:
        for batch in log.read(log.bounds([ERASURES]), _BATCH):
            for record in batch:
                if record.value is not None:
                    fields = codec.decode("erasure", record.value)
                    edges = [*fields["suppressed"], None][: 2 * ((len(fields["suppressed"]) + 1) // 2)]
                    ranges = tuple((begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True))
                    hashed = Hashed(fields["tenant_id"], fields["kind"], bytes.fromhex(fields["id_hash"]))
                    yield LedgerRow(
                        hashed, fields["key_id"], Entry(tuple(fields["cutoffs"]), ranges), fields["request_id"]
                    )
    finally:
        log.close()


def restore_ledger(connection: psycopg.Connection, rows: Iterable[LedgerRow]) -> int:
    """Store rows of the ledger's topic that are not stored; return how many."""
    newest = {row.hashed: row for row in rows}
    with connection.transaction():
        known = fetch_entries(connection, list(newest))
        missing = [row for hashed, row in newest.items() if hashed not in known]
        for row in missing:
            store_entries(connection, {row.hashed: row.entry}, row.key_id, row.request_id)
    return len(missing)


def erase_returned(connection: psycopg.Connection, hasher: Hasher) -> int:
    """Have people erased again who are stored although the ledger names them; return how many identifiers.

    Streams all identities that are stored, hashes them, and asks the ledger by one statement a page.
    """
    after, found = ("", ""), 0
    while True:
        with connection.transaction():
            page = connection.execute(_KEYS, {"tenant": after[0], "key": after[1], "limit": _BATCH}).fetchall()
            if not page:
                return found
            named = {hasher.hashed(each): each for each in (identifier_of(*key) for key in page)}
            entries = fetch_entries(connection, list(named))
            now_us = time.time_ns() // 1_000
            requests = [
                derived_request(named[hashed], hashed, entry.erased_until, now_us, "reapply")
                for hashed, entry in entries.items()
                if entry.erased_until
            ]
            store_requests(connection, requests)
            found += len(requests)
            after = page[-1]
