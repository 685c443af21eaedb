"""What each role of Postgres may do: the one place from which SQL, docs and tests are made.

Invariant: a role has the verbs that its stage's statements need and no other; none may change the schema.
Every stage reads ``attribution_migrations``, to see at its start that the schema is the one of its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

VERBS: Mapping[str, str] = MappingProxyType({"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"})
REPORTING = "attributary_reporting"
VIEW_SCHEMAS = ("reporting", "reporting_people")

# What the views read, so what readers see of.
VIEWED_TABLES = (
    "attribution_touchpoints",
    "attribution_conversions",
    "attribution_results",
    "attribution_removed_totals",
    "attribution_retired_credits",
    "attribution_spend",
    "attribution_spend_slices",
    "attribution_rollup_state",
    "attribution_rollup_models",
    "attribution_rollup_names",
    "attribution_rollup_days",
    "attribution_rollup_campaigns",
    "attribution_rollup_counts",
    "attribution_rollup_restatements",
)
# Columns that name a person or tell one apart; in `reporting` readers without people do without them.
PERSONAL_COLUMNS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "touchpoints": frozenset({"identity_key", "landing_url", "referrer", "details"}),
        "conversions": frozenset({"journey_key", "order_id"}),
        "results": frozenset({"journey_key"}),
        "result_versions": frozenset({"journey_key"}),
    }
)


@dataclass(frozen=True, slots=True)
class Role:
    """A role that cannot log in; logins become members of it.

    Attributes:
        name: as Postgres knows it.
        purpose: who has it, in a sentence.
        tables: letters of verbs by table, without ``attribution_``; ``U(a, b)`` at the end: only these columns.
        members_of: roles that it has the rights of.
        is_staging: makes temporary tables.
        views: schemas of views that it reads; of ``reporting`` without the personal columns.
        single_views: names of views of ``reporting`` that it reads without the others.
    """

    name: str
    purpose: str
    tables: Mapping[str, str] = field(default_factory=dict)
    members_of: Sequence[str] = ()
    is_staging: bool = False
    views: Sequence[str] = ()
    single_views: Sequence[str] = ()

    def grants(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return, by table, the verbs, each with its columns; none: the whole row."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for table, letters in self.tables.items():
            plain, _, rest = letters.partition("(")
            verbs: dict[str, tuple[str, ...]] = {VERBS[letter]: () for letter in plain}
            if rest:
                verbs[VERBS[plain[-1]]] = tuple(sorted(column.strip() for column in rest.rstrip(")").split(",")))
            found[f"attribution_{table}"] = verbs
        return found


_READ_EVENTS = {
    "touchpoints": "S", "conversion_events": "S", "identity_links": "S", "identities": "S", "journeys": "S",
    "conversions": "S",
}  # fmt: skip

ROLES: Sequence[Role] = (
    Role(
        "attributary_stitcher",
        "The stitcher: stores events and links, raises versions.",
        {
            "touchpoints": "SIU",
            "conversion_events": "SIU",
            "identity_links": "SIU",
            "identities": "SIUD",
            "journeys": "SIU",
            "conversions": "SIU",
            "event_conflicts": "SIU",
            "policies": "SI",
            "policy_activations": "S",
            "model_sets": "S",
            "training_changes": "SI",
            "training_upkeep": "S",
            "reopenings": "SIU",
            "erasure_requests": "SI",
            "erasures": "SIU",
            "erased_amounts": "SI",
            "dropped_links": "SIU",
            "removed_totals": "SIU",
            "positions": "SIUD",
            "tenants": "S",
            "tenant_moves": "S",
            "retention": "S",
            "retired_conversions": "S",
            "migrations": "S",
        },
        is_staging=True,
    ),
    Role(
        "attributary_attributor",
        "The attributor: only reads; it writes to Kafka alone.",
        {
            "touchpoints": "S",
            "identities": "S",
            "conversions": "S",
            "policies": "S",
            "model_sets": "S",
            "model_states": "S",
            "tombstones": "S",
            "migrations": "S",
        },
    ),
    Role(
        "attributary_auditor",
        "The auditor: stores results, notes which versions were seen.",
        {
            "results": "SID",
            "tombstones": "SU",
            "conversions": "SU(observed_version, observed_at, version, version_reason, previous_net_micros, "
            "versioned_at, updated_at)",
            "retired_conversions": "S",
            "positions": "SIUD",
            "migrations": "S",
        },
        is_staging=True,
    ),
    Role(
        "attributary_reporter",
        "The reporter: keeps the roll-up; of results it reads the topic alone.",
        {
            "rollup_state": "SIU",
            "rollup_conversions": "SIUD",
            "rollup_people": "S",
            "rollup_days": "SIU",
            "rollup_models": "SI",
            "rollup_names": "SIU",
            "rollup_campaigns": "SIU",
            "rollup_counts": "SIU",
            "rollup_restatements": "SIU",
            "retired_conversions": "S",
            "tenants": "S",
            "positions": "SIUD",
            "migrations": "S",
        },
        is_staging=True,
    ),
    Role(
        "attributary_spender",
        "The spender: stores what ads cost from the topic, and sees no person.",
        {
            "spend": "SIU(reported_at_us, updated_at)",
            "spend_slices": "SIU",
            "tenant_moves": "S",
            "positions": "SIUD",
            "migrations": "S",
        },
    ),
    Role(
        "attributary_sweeper",
        "The sweeper: asks again, finalises, closes, deletes what is kept no longer, erases people.",
        {
            "conversions": "SIUD",
            "journeys": "SIUD",
            "reopenings": "SUD",
            "results": "SD",
            "batch_jobs": "SUD",
            "policies": "SI",
            "policy_activations": "S",
            "model_sets": "S",
            "model_states": "S",
            "training_changes": "SI",
            "training_upkeep": "S",
            "training_watermark": "S",
            "training_people": "S",
            "touchpoints": "SUD",
            "conversion_events": "SUD",
            "identity_links": "SIUD",
            "identities": "SIUD",
            "event_conflicts": "SD",
            "deliveries": "SD",
            "erasure_requests": "SIU",
            "erasures": "SIU",
            "erased_amounts": "SID",
            "dropped_links": "SIUD",
            "removed_totals": "SIU",
            "tombstones": "SIUD",
            "audit": "I",
            "positions": "S",
            "tenants": "S",
            "migrations": "S",
            "retention": "SIU",
            "spend_slices": "S",
            "retired_conversions": "SIU",
            "retired_credits": "SIU",
            "rollup_state": "SIU",
            "rollup_conversions": "SUD",
            "rollup_people": "SID",
            "rollup_days": "SIU",
            "rollup_models": "S",
            "rollup_names": "SIU",
            "rollup_counts": "SIU",
            "rollup_restatements": "SIU",
        },
        is_staging=True,
    ),
    Role(
        "attributary_trainer",
        "The trainer: jobs, analyses, trained models and the training state.",
        {
            "audit": "I",
            **_READ_EVENTS,
            "results": "S",
            "policies": "S",
            "policy_activations": "S",
            "batch_jobs": "SIUD",
            "model_states": "SIU",
            "model_sets": "SI",
            "training_changes": "SID",
            "training_upkeep": "SIUD",
            "training_people": "SIUD",
            "training_periods": "SIUD",
            "training_watermark": "SIU",
            "positions": "SIUD",
            "migrations": "S",
        },
        is_staging=True,
    ),
    Role(
        "attributary_forwarder",
        "Forwarders: their ledger and their positions, no journey and no result.",
        {
            "deliveries": "SIUD",
            "delivery_requests": "SIUD",
            "stopped_names": "SIUD",
            "positions": "SIUD",
            "erasures": "S",
            "tenants": "S",
            "tenant_moves": "S",
            "migrations": "S",
        },
    ),
    Role(
        "attributary_spend",
        "`attributary spend import`, `spend aliases`, `fx import`, `experiment add`: what ads cost, and no person.",
        {
            "spend": "SIU(reported_at_us, updated_at)",
            "spend_slices": "SIU",
            "campaign_aliases": "SIUD",
            "fx_rates": "SI",
            "experiments": "SI",
            "tenants": "S",
            "audit": "I",
            "migrations": "S",
        },
    ),
    Role(
        "attributary_api",
        "The read API: only reads.",
        {
            **_READ_EVENTS,
            "results": "S",
            "removed_totals": "S",
            "event_conflicts": "S",
            "erasure_requests": "S(tenant_id, request_id, kind, mode, state, received_at_us, executed_at, "
            "completed_at, removed, derived_from)",
            "policies": "S",
            "policy_activations": "S",
            "batch_jobs": "S",
            "model_states": "S",
            "model_sets": "S",
            "tenants": "S",
            "rollup_state": "S",
            "rollup_days": "S",
            "rollup_models": "S",
            "rollup_names": "S",
            "rollup_campaigns": "S",
            "rollup_counts": "S",
            "rollup_restatements": "S",
            "rollup_conversions": "S",
            "spend": "S",
            "spend_slices": "S",
            "campaign_aliases": "S",
            "fx_rates": "S",
            "positions": "S",
            "migrations": "S",
        },
        single_views=("spend",),
    ),
    Role(
        "attributary_verifier",
        "`attributary verify`, `explain`, `status`: reads every table, writes nothing that lasts.",
        {"*": "S"},
        is_staging=True,
    ),
    Role(
        "attributary_pipeline",
        "All stages in one login, as `attributary all` needs it.",
        members_of=(
            "attributary_stitcher",
            "attributary_attributor",
            "attributary_auditor",
            "attributary_reporter",
            "attributary_spender",
            "attributary_sweeper",
            "attributary_trainer",
            "attributary_forwarder",
            "attributary_api",
        ),
    ),
    Role(
        "attributary_operator",
        "People who run commands that write: `tenants set`, `rebuild`, `refit`, `models`, `jobs`, `positions`.",
        {
            "tenants": "SIU",
            "audit": "SI",
            "policies": "SI",
            "policy_activations": "SI",
            "rebuilds": "SIU",
            "rollup_days": "SIUD",
            "rollup_models": "SI",
            "rollup_names": "SIUD",
            "rollup_campaigns": "SIUD",
            "rollup_counts": "SIUD",
            "rollup_restatements": "SIUD",
            "removed_totals": "SIU",
            "touchpoints": "SIUD",
            "conversion_events": "SIUD",
            "identity_links": "SIUD",
            "results": "SID",
            "batch_jobs": "SIU",
        },
        members_of=("attributary_pipeline", "attributary_verifier", "attributary_spend"),
    ),
    Role(
        "attributary_analyst",
        "Reads the views; which tenants, says attribution_tenant_readers.",
        views=VIEW_SCHEMAS[:1],
    ),
    Role(
        "attributary_people_analyst",
        "Reads the views with people as well.",
        members_of=("attributary_analyst",),
        views=VIEW_SCHEMAS[1:],
    ),
    Role(
        REPORTING,
        "Owns the views and no table; nobody logs in as it.",
        {**{table.removeprefix("attribution_"): "S" for table in VIEWED_TABLES}, "tenant_readers": "S"},
    ),
)
