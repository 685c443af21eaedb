"""`attributary verify`: compute everything anew from the log and the stored events, and compare with what is stored."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from attributary.consumers.runtime.records import Record
    from attributary.consumers.store.attribution_reads import OwedConversion
    from attributary.consumers.store.rows import EventRow
    from attributary.consumers.store.verifying import Difference
    from attributary.schemas.codec import Codec

_TABLES = ("attribution_touchpoints", "attribution_conversion_events", "attribution_identity_links")
_BATCH = 5_000
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command `verify`."""
    app.command("verify")(_verify)


def _verify(
    since: Annotated[
        str, typer.Option("--since", help="How much of the log to read: beginning, 2h / 3d ago, or an ISO time.")
    ] = "beginning",
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many differences.")] = _SHOWN,
) -> None:
    """Check the promises on live data, by reading only: exit code 0 when nothing differs, else 1.

    Every record of the input topics must be stored or be a dead letter. Owners, persons and values are computed anew
    from the stored events, results anew from them with the pinned policies and models. Conversions whose newest result
    is still on its way are counted, not compared. Needs DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS.

    Example: attributary verify --since 1d
    """
    from attributary.cli.outcome import database
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.runtime.topic_reader import parse_time
    from attributary.consumers.store.attribution_reads import prepare_reading
    from attributary.consumers.wire import RegistrySettings, make_codec

    try:
        since_ms = parse_time(since)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    found: list[Difference] = []
    with database("attributary-verify") as connection:
        prepare_reading(connection)
        connection.commit()
        codec = make_codec(load(RegistrySettings))
        records = _log(connection, codec, since_ms, found)
        connection.commit()
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        conversions, waiting = _state(connection, found)
    for difference in found[:limit]:
        print(f"{difference.tenant_id}  {difference.what}\n    stored   {difference.stored}")
        print(f"    expected {difference.expected}")
    print(f"{records} records of the log and {conversions} conversions read, {waiting} results on their way, "
          f"{len(found)} differences")  # fmt: skip
    raise typer.Exit(1 if found else 0)


def _log(connection: "psycopg.Connection", codec: "Codec", since_ms: int | None, found: "list[Difference]") -> int:
    """Compare the log with the stored events; returns how many records were read."""
    from attributary.consumers.runtime.redrive import letter_of
    from attributary.consumers.runtime.settings import KafkaSettings, load
    from attributary.consumers.runtime.topic_reader import read_topic
    from attributary.consumers.stitcher.stage import GROUP, StitcherStage
    from attributary.schemas.topics import dead_letter_topic

    kafka = load(KafkaSettings)
    count = 0
    for topic in StitcherStage.topics:
        # The positions first, the log after them: what comes later is on its way.
        positions = _positions(connection, GROUP, topic)
        connection.commit()
        letters = {
            letter_of(record).origin
            for record in read_topic(kafka, dead_letter_topic(topic, GROUP), since_ms=since_ms, until_end=True)
        }
        batch: list[Record] = []
        for record in read_topic(kafka, topic, since_ms=since_ms, until_end=True):
            if record.offset >= positions.get(record.partition, 0):
                continue
            count += 1
            batch.append(record)
            if len(batch) == _BATCH:
                found += _missing(connection, codec, batch, letters)
                batch = []
        found += _missing(connection, codec, batch, letters)
    return count


def _positions(connection: "psycopg.Connection", group: str, topic: str) -> dict[int, int]:
    from attributary.consumers.store.positions import all_positions

    return {row[2]: row[3] for row in all_positions(connection) if row[:2] == (group, topic)}


def _missing(
    connection: "psycopg.Connection", codec: "Codec", batch: "Sequence[Record]", letters: set[str]
) -> "Iterator[Difference]":
    """Yield the records of a batch that are neither stored nor a dead letter."""
    from attributary.consumers.stitcher.decoding import Decoder
    from attributary.consumers.store.verifying import Difference, held

    if not batch:
        return
    decoded = Decoder(codec, strict=True).decode(batch)
    for letter in decoded.dead_letters:
        if letter.record.place not in letters:
            yield Difference("?", f"record {letter.record.place}", "in no dead-letter topic", letter.reason)
    kinds: tuple[Sequence[EventRow], ...] = (decoded.touchpoints, decoded.conversion_events, decoded.links)
    for table, rows in zip(_TABLES, kinds, strict=True):
        there = held(connection, table, [(row.tenant_id, row.event_id) for row in rows])
        for row in rows:
            stored = there.get((row.tenant_id, row.event_id))
            place = f"{row.topic}[{row.partition}]@{row.offset}"
            if (stored is None or stored > row.content_hash) and place not in letters:
                yield Difference(row.tenant_id, f"event {row.event_id} of {place}", str(stored), str(row.content_hash))


def _state(connection: "psycopg.Connection", found: "list[Difference]") -> tuple[int, int]:
    """Compare what was derived with what the events say; returns conversions read, and results on their way."""
    from attributary.consumers.store.attribution_reads import conversions_by_id
    from attributary.consumers.store.verifying import conversion_pages, wrong_conversions, wrong_owners

    found += wrong_owners(connection)
    found += wrong_conversions(connection)
    count = waiting = 0
    for page in conversion_pages(connection):
        conversions = conversions_by_id(connection, page)
        settled = [conversion for conversion in conversions if conversion.observed_version >= conversion.version]
        count += len(conversions)
        waiting += len(conversions) - len(settled)
        found += _wrong_results(connection, settled)
    return count, waiting


def _wrong_results(connection: "psycopg.Connection", conversions: "Sequence[OwedConversion]") -> "Iterator[Difference]":
    """Yield the conversions whose stored result is not what the stored events give."""
    from attributary.attribution_core.models import model_set
    from attributary.consumers.attributor.crediting import by_model_set, results, within_policy
    from attributary.consumers.store.attribution_reads import touchpoints_in_reach
    from attributary.consumers.store.model_states import fetch_model_sets
    from attributary.consumers.store.policies import fetch_policy
    from attributary.consumers.store.verifying import Difference, stored_results
    from attributary.schemas.limits import MINOR_UNIT_MICROS

    versions = {(c.tenant_id, c.conversion_id): c.version for c in conversions}
    stored = stored_results(connection, versions)
    pinned = {version: fetch_policy(connection, version) for version in {c.policy_version for c in conversions}}
    policies = {version: policy for version, policy in pinned.items() if policy is not None}
    for group in by_model_set([c for c in conversions if c.policy_version in policies]):
        windows = [policies[conversion.policy_version].longest_window_micros for conversion in group]
        credited = within_policy(group, touchpoints_in_reach(connection, group, windows), policies)
        pin = (group[0].tenant_id, group[0].model_set)
        models = model_set(states=fetch_model_sets(connection, [pin]).get(pin, {}))
        records = results(group, credited, models, lambda currency: MINOR_UNIT_MICROS.get(currency, 1))
        for conversion, record in zip(group, records, strict=True):
            there = stored.get((conversion.tenant_id, conversion.conversion_id))
            expected = _essence(record)
            known = None if there is None else _stored_essence(there)
            if known != expected:
                what = f"result of {conversion.conversion_id}, version {conversion.version}"
                yield Difference(conversion.tenant_id, what, str(known), str(expected))


def _essence(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a result says, in the form in which it is compared: net, person, touches, and micros by model."""
    models = record["models"]
    touches = [touch["event_id"] for touch in models[0]["touchpoints"]] if models else []
    micros = {model["model"]: [touch["value_micros"] for touch in model["touchpoints"]] for model in models}
    return record["net_value_micros"], record["journey_key"], touches, micros


def _stored_essence(row: tuple[int, str, Any, Any]) -> tuple[Any, ...]:
    net, journey, touchpoints, models = row
    micros = {model["model"]: model["micros"] for model in models}
    return net, journey, [touch["event_id"] for touch in touchpoints], micros
