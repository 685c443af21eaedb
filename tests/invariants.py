"""The five promises, checked in one function that every integration and fault test calls last.

I1 every acknowledged event is in Postgres or in a dead-letter topic, exactly once, never both; or it was erased by a
request that names its person, and is in neither;
I2 the newest result of every conversion is what `attribution_core` computes on the complete set of events;
I3 no (conversion, version) twice for a read_committed reader; I4 versions strictly rise per key in the log's order;
I5 credits sum to the net value for every model of every result, to the micro; I6 observed_version == version;
I7 no touch is credited to two people, and no tenant sees another's; I8 of erased people nothing is left, their results
are taken back, and their revenue stands in the totals, to the micro.

`repeats_allowed` is for faults that the transactions of librdkafka cannot hide (a sweeper that asked again, a torn
transaction, a Postgres that lost commits): the same version may then come again, but only with the same content, or be
followed by a higher version that is right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.attribution_core.models.model_set import OPTIONAL_MODELS
from tests.expected_results import Truth, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from attributary.attribution_core.domain.lookback import LookbackPolicy
    from attributary.attribution_core.models.model_set import ModelSet
    from tests.expected_results import Expected, InputRecord, Key

Place = tuple[str, int, int]
_SHOWN = 5


class ResultSeen(NamedTuple):
    """A result as a read_committed reader sees it, in the order of its partition."""

    partition: int
    offset: int
    key: bytes
    result: dict[str, Any]  # empty: a tombstone


@dataclass
class StoreSeen:
    """What stands in the store."""

    events: dict[str, dict[Key, Place]] = field(default_factory=dict)  # record name -> (tenant, event id) -> place
    conflicts: set[tuple[str, Key, int]] = field(default_factory=set)  # record name, id, content that was set aside
    versions: dict[Key, tuple[int, int, str, int]] = field(default_factory=dict)  # version, observed, journey, net
    results: dict[tuple[str, str, int], str] = field(default_factory=dict)  # tenant, conversion, version -> hash
    erased_micros: dict[Key, int] = field(default_factory=dict)  # net value by tenant and currency
    requests: dict[Key, str] = field(default_factory=dict)  # state of the requests to erase people
    without_row: set[Key] = field(default_factory=set)  # who owns, is owned or converted, and has no row of their own


@dataclass(frozen=True)
class Findings:
    """What was checked, for the report of a test run."""

    events: int
    refused: int
    conversions: int
    results: int
    repeats: int


class _Violations:
    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, promise: str, text: str) -> None:
        self.found.setdefault(promise, []).append(text)

    def text(self) -> str:
        lines = []
        for promise, found in sorted(self.found.items()):
            lines.append(f"{promise}: {len(found)} violations")
            lines += [f"    {text}" for text in found[:_SHOWN]]
        return "\n".join(lines)


def check_invariants(
    inputs: Sequence[InputRecord],
    store: StoreSeen,
    dead_letters: Iterable[Place],
    results: Sequence[ResultSeen],
    *,
    acknowledged: Iterable[Place] = (),
    policy: LookbackPolicy | None = None,
    models: ModelSet | None = None,
    repeats_allowed: bool = False,
) -> Findings:
    """Check all promises.

    Args:
        inputs: every record of the input topics.
        store: what stands in Postgres.
        dead_letters: coordinates of the original records that the dead-letter topics hold, as often as they do.
        results: a read_committed dump of the results topic.
        acknowledged: coordinates that the broker acknowledged to the publisher.
        policy: the lookback policy that was in force; the default one if None.
        models: the models that were in force; the untrained ones if None.
        repeats_allowed: tolerate what transactions cannot hide, see the module.

    Raises:
        AssertionError: the text names the first violations of every promise.
    """
    truth = tell(inputs, policy, models)
    bad = _Violations()
    _nothing_lost(bad, truth, Counter(dead_letters), set(acknowledged), repeats_allowed=repeats_allowed)
    _stored_as_published(bad, truth, store)
    repeats = _versions_rise(bad, results, repeats_allowed=repeats_allowed)
    newest = _newest(results)
    _erased(bad, truth, store, newest)
    _erased_money(bad, truth, store)
    _newest_is_true(bad, truth, newest, repeats_allowed=repeats_allowed)
    for seen in results:
        _sums(bad, seen)
    _observed(bad, truth, store, newest)
    _nobody_shares(bad, truth, newest)
    for tenant, person in sorted(store.without_row):
        bad.add("I2", f"{tenant} {person} has no row: stitching will take this person for a new one")
    assert not bad.found, bad.text()
    return Findings(len(inputs), len(truth.refused), len(truth.conversions), len(results), repeats)


def _nothing_lost(
    bad: _Violations, truth: Truth, dead: Counter[Place], acknowledged: set[Place], *,
    repeats_allowed: bool,
) -> None:  # fmt: skip
    known = truth.records.keys() | truth.refused
    for place in sorted(acknowledged - known):
        bad.add("I1", f"{place} was acknowledged and is not in the log")
    for place in sorted(truth.refused - dead.keys()):
        bad.add("I1", f"{place} can never be processed and is in no dead-letter topic")
    for place in sorted(dead.keys() - truth.refused):
        bad.add("I1", f"{place} is in a dead-letter topic, and nothing is wrong with it")
    for place, times in sorted(dead.items()):
        if times > 1 and not repeats_allowed:
            bad.add("I1", f"{place} is {times} times in a dead-letter topic")


def _erased(bad: _Violations, truth: Truth, store: StoreSeen, newest: dict[Key, dict[str, Any]]) -> None:
    for name, key in sorted(truth.erased):
        if key in store.events.get(name, {}):
            bad.add("I8", f"{name} {key} is of an erased person, and stored")
    for key in sorted(truth.erased_conversions):
        if key in newest:
            bad.add("I8", f"{key} was erased, and has a result of version {newest[key]['version']}")
        if key in store.versions:
            bad.add("I8", f"{key} was erased, and is stored with version {store.versions[key][0]}")
    for tenant, conversion_id, version in sorted(store.results):
        if (tenant, conversion_id) in truth.erased_conversions:
            bad.add("I8", f"{(tenant, conversion_id)} was erased, and its result {version} is stored")


def _erased_money(bad: _Violations, truth: Truth, store: StoreSeen) -> None:
    for whose in sorted(truth.erased_micros.keys() | store.erased_micros.keys()):
        wanted, found = truth.erased_micros.get(whose, 0), store.erased_micros.get(whose, 0)
        if wanted != found:
            bad.add("I8", f"{whose}: {found} micros stand in the totals of erased people, must be {wanted}")
    for request, state in sorted(store.requests.items()):
        if state == "pending":
            bad.add("I8", f"the request {request} was never carried out")


def _stored_as_published(bad: _Violations, truth: Truth, store: StoreSeen) -> None:
    for name, wanted in truth.stored.items():
        there = store.events.get(name, {})
        for key in sorted(wanted.keys() - there.keys()):
            bad.add("I1", f"{name} {key} from {wanted[key]} is not stored")
        for key in sorted(there.keys() - wanted.keys()):
            bad.add("I1", f"{name} {key} is stored and was never published")
        for key in sorted(wanted.keys() & there.keys()):
            if wanted[key] != there[key]:
                bad.add("I1", f"{name} {key}: the content of {there[key]} is stored, that of {wanted[key]} wins")
    for conflict in sorted(truth.conflicts ^ store.conflicts):
        known = "is not noted" if conflict in truth.conflicts else "is noted, and was never published"
        bad.add("I1", f"{conflict}: a content that was set aside {known}")


def _versions_rise(bad: _Violations, results: Sequence[ResultSeen], *, repeats_allowed: bool) -> int:
    seen: dict[Key, dict[int, str]] = {}
    highest: dict[Key, int] = {}
    homes: dict[bytes, int] = {}
    repeats = 0
    for partition, offset, key, result in sorted(results, key=lambda seen: (seen.partition, seen.offset)):
        if not result:
            continue
        whose = (result["tenant_id"], result["conversion_id"])
        version, content = result["version"], result["content_hash"]
        at = f"{whose} version {version} at [{partition}]@{offset}"
        if key != f"{whose[0]}|{whose[1]}".encode():
            bad.add("I4", f"{at} has the key {key!r}")
        if homes.setdefault(key, partition) != partition:
            bad.add("I4", f"{at}: its earlier versions are on partition {homes[key]}")
        earlier = seen.setdefault(whose, {})
        if version in earlier:
            repeats += 1
            if not repeats_allowed:
                same = "same" if earlier[version] == content else "other"
                bad.add("I3", f"{at} comes a second time, with the {same} content")
        elif version <= highest.get(whose, 0) and not repeats_allowed:
            bad.add("I4", f"{at} follows version {highest[whose]}")
        earlier.setdefault(version, content)
        highest[whose] = max(version, highest.get(whose, 0))
    return repeats


def _newest(results: Sequence[ResultSeen]) -> dict[Key, dict[str, Any]]:
    """The last record of the highest version of each conversion: what compaction and a careful reader keep."""
    newest: dict[Key, dict[str, Any]] = {}
    for seen in sorted(results, key=lambda seen: (seen.partition, seen.offset)):
        if not seen.result:
            tenant, _, conversion_id = seen.key.decode().partition("|")
            newest.pop((tenant, conversion_id), None)
            continue
        key = (seen.result["tenant_id"], seen.result["conversion_id"])
        if key not in newest or seen.result["version"] >= newest[key]["version"]:
            newest[key] = seen.result
    return newest


def _newest_is_true(
    bad: _Violations, truth: Truth, newest: dict[Key, dict[str, Any]], *, repeats_allowed: bool
) -> None:
    for key in sorted(truth.conversions.keys() - newest.keys()):
        bad.add("I2", f"{key} has no result")
    for key in sorted(newest.keys() - truth.conversions.keys()):
        # Opened by a content that lost against another one of the same event id: withdrawn, worth nothing. When
        # Postgres lost the opening as well, nothing is left to withdraw it (docs/reference/reliability.md, limits).
        worth = (newest[key]["gross_value_micros"], newest[key]["net_value_micros"])
        if key not in truth.named or (worth != (0, 0) and not repeats_allowed):
            bad.add("I2", f"{key} has a result worth {worth}, and no conversion was published")
    for key in sorted(truth.conversions.keys() & newest.keys()):
        difference = _difference(truth.conversions[key], newest[key])
        if difference is not None:
            bad.add("I2", f"{key} version {newest[key]['version']} ({newest[key]['version_reason']}): {difference}")


# So many touchpoints fit into any result (consumers/attributor/credits.py, with nine models).
_ALWAYS_FIT = 17


def _difference(wanted: Expected, result: dict[str, Any]) -> str | None:
    kept = result["touchpoint_count"]
    for cut in (insight for insight in result["insights"] if insight["rule_id"] == "journey.cut"):
        # It says of itself that it credits the newest alone: then these, and no others.
        if not _ALWAYS_FIT <= kept < cut["n"] <= len(wanted.touches):
            return f"says {cut['text']!r} and credits {kept} of {len(wanted.touches)}"
        wanted = wanted.newest(kept)
    return _fact_that_differs(wanted, result) or _credits_that_differ(wanted, result)


def _fact_that_differs(wanted: Expected, result: dict[str, Any]) -> str | None:
    facts = {
        "journey_key": wanted.journey_key,
        "conversion_type": wanted.conversion_type,
        "converted_at": wanted.converted_at,
        "gross_value_micros": wanted.gross_micros,
        "net_value_micros": wanted.net_micros,
        "currency": wanted.currency,
        "touchpoint_count": len(wanted.touches),
    }
    for name, value in facts.items():
        if result[name] != value:
            return f"{name} is {result[name]!r}, must be {value!r}"
    return None


def _credits_that_differ(wanted: Expected, result: dict[str, Any]) -> str | None:
    if {model["model"] for model in result["models"]} != wanted.micros.keys():
        return f"models are {sorted(model['model'] for model in result['models'])}, must be {sorted(wanted.micros)}"
    for model in result["models"]:
        name = model["model"]
        touches = tuple(touch["event_id"] for touch in result["touchpoints"])
        if touches != wanted.touches:
            extra, missing = set(touches) - set(wanted.touches), set(wanted.touches) - set(touches)
            return f"{name}: touches {sorted(extra)} are too many, {sorted(missing)} are missing"
        micros = tuple(model["micros"])
        if micros != wanted.micros[name]:
            return f"{name}: micros are {micros}, must be {wanted.micros[name]}"
        pairs = zip(model["credits"], wanted.credits[name], strict=True)
        if any(abs(found - credit) > 1e-9 for found, credit in pairs):
            return f"{name}: credits differ"
    return None


def _sums(bad: _Violations, seen: ResultSeen) -> None:
    result = seen.result
    if not result:
        return
    at = f"{(result['tenant_id'], result['conversion_id'])} version {result['version']}"
    for model in result["models"]:
        total = sum(model["micros"]) + model["unattributed_micros"]
        if total != result["net_value_micros"]:
            bad.add("I5", f"{at}, {model['model']}: {total} micros credited of {result['net_value_micros']}")
        if result["touchpoints"]:
            credit = sum(model["credits"])
            # a model with a baseline leaves a part to nobody
            if credit > 1 + 1e-6 or (credit < 1 - 1e-6 and model["model"] not in OPTIONAL_MODELS):
                bad.add("I5", f"{at}, {model['model']}: credits sum to {credit}")


def _observed(bad: _Violations, truth: Truth, store: StoreSeen, newest: dict[Key, dict[str, Any]]) -> None:
    for key in sorted(truth.conversions):
        if key not in store.versions:
            bad.add("I6", f"{key} is not stored")
            continue
        version, observed, journey, net = store.versions[key]
        result = newest.get(key)
        if version != observed:
            bad.add("I6", f"{key}: version {version}, observed {observed}")
        if not result:
            continue
        if result["version"] != version:
            bad.add("I6", f"{key}: Postgres is at version {version}, the topic at {result['version']}")
        if (journey, net) != (result["journey_key"], result["net_value_micros"]):
            bad.add("I2", f"{key}: stored as {(journey, net)}, published as "
                          f"{(result['journey_key'], result['net_value_micros'])}")  # fmt: skip
        if (*key, version) not in store.results:
            bad.add("I6", f"{key}: version {version} is not among the stored results")
    for key in sorted(store.versions.keys() - truth.conversions.keys() - truth.named):
        if store.versions[key][0] > 0 and key not in newest:
            bad.add("I2", f"{key} is stored and was never published")


def _nobody_shares(bad: _Violations, truth: Truth, newest: dict[Key, dict[str, Any]]) -> None:
    person: dict[Key, str] = {}
    for (tenant, conversion_id), result in sorted(newest.items()):
        for touch in result["touchpoints"]:
            key = (tenant, touch["event_id"])
            if key not in truth.stored.get("touchpoint", {}):
                bad.add("I7", f"{tenant} {conversion_id}: touch {touch['event_id']} is not this tenant's")
            if person.setdefault(key, result["journey_key"]) != result["journey_key"]:
                bad.add("I7", f"{key} is credited to {person[key]} and to {result['journey_key']}")
