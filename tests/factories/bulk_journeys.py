"""The reference data set's events as the stitcher would leave them, copied straight into the tables: quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attributary.schemas.topics import TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import psycopg

    from attributary.attribution_core.domain.lookback import LookbackPolicy

# Published for this data set: normalised exact removal effects of the first order, and simplified Shapley values, in
# conversions.
MARKOV = {
    "eta": 3340.8, "iota": 3884.6, "alpha": 5344.9, "beta": 2527.4, "theta": 1971.9, "lambda": 1282.8, "kappa": 274.4,
    "zeta": 381.1, "epsilon": 599.6, "gamma": 171.1, "delta": 4.6, "mi": 1.7,
}  # fmt: skip
SHAPLEY = {"alpha": 7627.9, "eta": 3613.7, "iota": 3505.0}

_TOUCHPOINTS = (
    "tenant_id, event_id, identity_key, occurred_at_us, received_at_us, platform, channel, interaction, campaign, "
    "is_bot, details, content_hash, source_topic, source_partition, source_offset"
)
_CONVERSIONS = (
    "tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, received_at_us, "
    "gross_value_micros, net_value_micros, previous_net_micros, currency, version, version_reason, policy_version, "
    "owner_topic, owner_partition, owner_offset, event_published_us"
)
_JOURNEYS = "tenant_id, journey_key, first_event_us, last_event_us, last_received_us"


def copy_replay(
    connection: psycopg.Connection, replay: Iterable[tuple[str, bytes, Mapping[str, Any]]], policy: LookbackPolicy
) -> None:
    """Store the events of a replay, each received when it happened, every person a journey of its own."""
    bounds: dict[tuple[str, str], list[int]] = {}
    touches: list[tuple[Any, ...]] = []
    conversions: list[tuple[Any, ...]] = []
    for offset, (topic, _, record) in enumerate(replay):
        key, at, event = f"a:{record['anonymous_id']}", record["occurred_at"], record["event_id"]
        bounds.setdefault((record["tenant_id"], key), []).append(at)
        place = (topic, 0, offset)
        if topic == TOUCHPOINTS:
            kind = (record["platform"], record["channel"], record["interaction"])
            touches.append((record["tenant_id"], event, key, at, at, *kind, "", False, "{}", 0, *place))
        else:
            value = record["value_micros"]
            conversions.append(
                (record["tenant_id"], event, record["conversion_type"], key, key, at, at, value, value, 0,
                 record["currency"], 1, "new", policy.version, *place, at)
            )  # fmt: skip
    journeys = [(*key, min(times), max(times), max(times)) for key, times in bounds.items()]
    _copy(connection, f"attribution_touchpoints ({_TOUCHPOINTS})", touches)
    _copy(connection, f"attribution_conversions ({_CONVERSIONS})", conversions)
    _copy(connection, f"attribution_journeys ({_JOURNEYS})", journeys)


def _copy(connection: psycopg.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
