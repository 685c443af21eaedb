"""`attributary verify`: replay the log into a shadow of the tables, and compare with what is stored."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from attributary.consumers.maintenance.verify import Findings

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command `verify`."""
    app.command("verify")(_verify)


def _verify(
    *,
    since: Annotated[
        str, typer.Option("--since", help="Read the log from this time: 1d, 2026-11-01, ... (docs/reference/times.md).")
    ] = "beginning",
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Stitch everything again, or only query what is stored.")
    ] = True,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="SCHEMA", help="Keep the shadow in this new schema, to look at.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many differences.")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Check the promises on live data: exit code 0 when nothing differs, else 1.

    What is stored is frozen in one snapshot, and the log is read exactly as far as that snapshot had: the pipeline may
    go on meanwhile. Five kinds of evidence: every record of the log is stored or a dead letter (log); the stitcher's
    own code, run over the log from --since and over the stored events before that, makes the same events, owners and
    conversions in a shadow of the tables (replay); queries that know nothing of the stitcher say the same of the
    stored events (events); the newest results are what the pinned models make of them (results); the roll-up
    that reports read is the sum of the newest results (rollup). A conversion that
    still waits for its newest result is counted, not compared.

    Writes nothing that lasts: the shadow is the session's temporary schema, every other table is read-only to it.
    Needs DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS, and in Postgres SELECT and TEMPORARY (role attributary_verifier).

    Example: attributary verify --since 1d
    """
    from attributary.cli.outcome import kafka_settings
    from attributary.cli.progress import progress_bar
    from attributary.cli.tables import print_json
    from attributary.cli.times import log_time
    from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
    from attributary.consumers.maintenance.verify import Findings, check_log, check_replay, check_stored
    from attributary.consumers.runtime.log_reader import LogReader
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.repair.shadow_tables import keep_shadow

    since_ms = log_time(since, "--since")
    if keep is not None and not replay:
        raise typer.BadParameter("there is no shadow to keep without the replay", param_hint="--keep")
    found = Findings(limit)
    with _connections(replay=replay) as (snapshot, shadow):
        codec = make_codec(load(RegistrySettings))
        log = LogReader(kafka_settings())
        try:
            ranges = check_log(log, snapshot, codec, since_ms, found, progress_bar)
            if shadow is not None:
                check_replay(log, snapshot, shadow, codec, ranges, found, progress_bar)
        finally:
            log.close()
        check_stored(snapshot, found, progress_bar)
        if keep is not None and shadow is not None:
            keep_shadow(shadow, keep)
    if as_json:
        print_json(found.document())
    else:
        _print(found)
    raise typer.Exit(1 if found.total else 0)


@contextmanager
def _connections(*, replay: bool) -> Iterator[tuple[psycopg.Connection, psycopg.Connection | None]]:
    """Open what is stored, in one snapshot that nothing can write to, and the shadow of it."""
    from attributary.cli.outcome import database
    from attributary.consumers.store.repair.shadow_tables import create_shadow, home

    with database("attributary-verify") as snapshot:
        schema = home(snapshot)
        snapshot.commit()
        snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if not replay:
            yield snapshot, None
            return
        with database("attributary-verify-shadow") as shadow:
            create_shadow(shadow, schema)
            yield snapshot, shadow


def _print(found: Findings) -> None:
    from attributary.cli.tables import plural

    for difference, evidence in found.shown.items():
        print(f"{difference[0]}  {difference[1]}  (by {', '.join(evidence)})")
        one = next(iter(evidence.values()))
        print(f"    stored   {one.stored}\n    expected {one.expected}")
    print(
        f"{plural(found.records, 'record')} of the log and {plural(found.conversions, 'conversion')} read, "
        f"{plural(found.waiting, 'result')} on their way, {plural(found.total, 'difference')}"
    )
    if found.unread:
        print(
            f"the log goes on for {plural(found.unread, 'offset')} that the stitcher has not stored yet: not looked at"
        )
    if not found.records and not found.conversions:
        print("nothing was compared: nothing of this part of the log is stored; see: attributary status")
    if found.replayed is not None:
        print(
            f"replayed {plural(found.replayed, 'record')} of the log after {plural(found.older, 'stored event')} older "
            "than it"
        )
