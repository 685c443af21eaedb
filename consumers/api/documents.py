"""What the read API answers with. Money is in micros, whole numbers; times are RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

from attributary.consumers.reports.answer import origin_document
from attributary.consumers.reports.origin import Origin
from attributary.consumers.store.erasure.ledger import RequestState
from attributary.consumers.store.jobs.job_views import JobRow
from attributary.consumers.store.models.model_states import StateSummary
from attributary.consumers.store.results.credit_report import Report, ReportQuery
from attributary.consumers.store.results.result_pages import PublishedResult

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=800, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A text of a request, without control characters."""


class Health(msgspec.Struct):
    """Whether the process and its database answer."""

    status: str
    database: str


class Touchpoint(msgspec.Struct):
    """A touchpoint of a journey. Names are labels and may change; the ids of the platform do not."""

    event_id: str
    channel: str
    platform: str
    campaign: str
    occurred_at: str
    campaign_id: str | None
    ad_set_id: str | None
    ad_id: str | None


class TouchCredit(msgspec.Struct):
    """What a model gives to one touchpoint: a share of the conversion, and its money in micros."""

    event_id: str
    credit: float
    value_micros: int


class ModelCredits(msgspec.Struct):
    """One model's answer. The values of the credits and `unattributed_micros` sum to the net value, to the micro."""

    model: str
    model_version: str
    fallback: str | None
    confidence: float | None
    unattributed_micros: int
    credits: list[TouchCredit]


class Result(msgspec.Struct):
    """One version of a conversion's result."""

    conversion_id: str
    version: int
    version_reason: str
    is_final: bool
    conversion_type: str
    converted_at: str
    computed_at: str
    net_value_micros: int
    gross_value_micros: int
    delta_micros: int
    currency: str
    policy_version: str
    touchpoint_count: int
    touchpoints: list[Touchpoint]
    models: list[ModelCredits]


class Results(msgspec.Struct):
    """A page of results. `next` goes into the parameter `after` of the next request; null: this is the last page."""

    results: list[Result]
    next: str | None


class CreditLine(msgspec.Struct):
    """What one model credits to one group of a report.

    `bucket` is null for what touchpoints get, else `(unattributed)`, or `(erased)` or `(retired)` for conversions that
    are not stored one by one any more.
    """

    keys: dict[str, str]
    currency: str
    model: str
    is_attributed: bool
    bucket: str | None
    conversions: float
    value_micros: int
    journeys: int
    share: float | None
    share_low: float | None
    share_high: float | None


class CurrencyTotal(msgspec.Struct):
    """Conversions and net value of a report in one currency; `removed`: the part of both that was erased or retired."""

    currency: str
    conversions: int
    net_value_micros: int
    removed_conversions: int
    removed_net_value_micros: int


class CreditReport(msgspec.Struct):
    """Credit by dimensions and models. Of each model and currency the lines sum to what it credits, to the micro.

    Lines of the buckets `(erased)` and `(retired)` are among them: an erasure or a retirement changes no sum.
    """

    by: list[str]
    totals: list[CurrencyTotal]
    lines: list[CreditLine]
    source: ReportSource


class ReportTotal(msgspec.Struct):
    """What a report is about: conversions, their net value, and how many touchpoints cannot change any more."""

    conversions: int
    net_value_micros: int
    final_conversions: int


class OtherCurrency(msgspec.Struct):
    """What stands in another currency, which is never added."""

    currency: str
    conversions: int
    net_value_micros: int


class ReportColumn(msgspec.Struct):
    """A column: its unit (docs/reference/reports.md), and whether its cells may be added up."""

    name: str
    unit: str
    is_additive: bool


class ReportSource(msgspec.Struct, rename={"source": "from"}):
    """What a report was computed from; `results`: every result was read, for the reason that is named.

    `rollup`: complete to the computing time of its newest result, with so many stored results not in it yet, at most.
    """

    source: str
    complete_to: str | None
    results_behind: int | None
    reason: str | None


class ReportDocument(msgspec.Struct, rename={"since": "from", "until": "to", "changed_since": "since"}):
    """A report of the catalogue. A row has one cell a column; null: there is no such number."""

    report: str
    question: str
    tenant: str
    since: str | None
    until: str | None
    as_of: str | None
    changed_since: str | None
    time_zone: str
    currency: str
    conversion_types: list[str]
    models: list[str]
    by: str
    total: ReportTotal
    other_currencies: list[OtherCurrency]
    columns: list[ReportColumn]
    rows: list[list[str | int | float | None]]
    finding: str
    notes: list[str]
    source: ReportSource


class Job(msgspec.Struct):
    """A job as it stands."""

    job_id: str
    kind: str
    state: str
    parameters: dict[str, str]
    done: int
    total: int | None
    error: str | None
    result: dict[str, Any] | None
    submitted_at: str
    started_at: str | None
    finished_at: str | None


class SubmittedJob(msgspec.Struct):
    """A job that the log has taken. A trainer does it; ask for its state at `url`."""

    job_id: str
    url: str


class ErasureRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who is to be erased, and how.

    `kind` is what the identifier is: user, anonymous, order (an order or conversion id) or email (SHA-256 of the
    trimmed lower-case address). `mode`: delete, delete-and-suppress, suppress or unsuppress; delete when missing.
    """

    kind: Text
    identifier: Text
    mode: Text | None = None


class SubmittedErasure(msgspec.Struct):
    """A request that the log has taken. Ask for its state at `url`."""

    request_id: str
    url: str


class Erasure(msgspec.Struct):
    """A request as it stands, in the states of OpenDSR: pending, in_progress, completed or cancelled.

    `removed` counts rows by table. A request is stored once the stitcher has read it: until then it is answered 404.
    """

    request_id: str
    kind: str
    mode: str
    state: str
    received_at: str
    executed_at: str | None
    completed_at: str | None
    removed: dict[str, int]


class ModelVersion(msgspec.Struct):
    """A trained version of a model."""

    model: str
    version: int
    is_active: bool
    status: str | None
    trained_at: str
    activated_at: str | None


class Models(msgspec.Struct):
    """All trained versions, the newest of each model first."""

    models: list[ModelVersion]


class JourneyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A conversion to be credited touch by touch, on what is stored now, by the models in force."""

    conversion_id: Text


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Conversions to be analysed as a job. Times as in docs/reference/times.md."""

    since: Text | None = None
    until: Text | None = None
    conversion_type: Text | None = None
    closing: Text | None = None
    platform: Text | None = None
    campaign: Text | None = None
    user_id: Text | None = None
    anonymous_id: Text | None = None


class TrainRequest(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Journeys to train Markov on, as a job. Times as in docs/reference/times.md."""

    since: Text | None = None
    until: Text | None = None
    conversion_type: Text | None = None
    currency: Text | None = None
    closing: Text | None = None
    activate: bool | None = None


def time_text(micros: int) -> str:
    """Return microseconds since 1970 UTC as RFC 3339."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def result_document(row: PublishedResult) -> Result:
    """Return a stored result as it is answered."""
    touches = [
        Touchpoint(
            touch["event_id"],
            touch["channel"],
            touch["platform"],
            touch["campaign"],
            time_text(touch["occurred_at"]),
            touch.get("campaign_id"),
            touch.get("ad_set_id"),
            touch.get("ad_id"),
        )
        for touch in row.touchpoints
    ]
    models = [
        ModelCredits(
            model["model"],
            model["model_version"],
            model.get("fallback"),
            model.get("confidence"),
            model["unattributed_micros"],
            [
                TouchCredit(touch.event_id, credit, micros)
                for touch, credit, micros in zip(touches, model["credits"], model["micros"], strict=True)
            ],
        )
        for model in row.models
    ]
    return Result(
        row.conversion_id, row.version, row.version_reason, row.is_final, row.conversion_type,
        time_text(row.converted_at_us), time_text(row.computed_at_us), row.net_value_micros, row.gross_value_micros,
        row.delta_micros, row.currency, row.policy_version, row.touchpoint_count, touches, models,
    )  # fmt: skip


def report_document(query: ReportQuery, report: Report, origin: Origin) -> CreditReport:
    """Return a report as it is answered."""
    return CreditReport(
        list(query.by),
        [CurrencyTotal(*total) for total in report.totals],
        [
            CreditLine(
                dict(zip(query.by, row.keys, strict=True)), row.currency, row.model, row.is_touch, row.bucket,
                row.conversions, row.value_micros, row.journeys, *((None,) * 3 if row.share is None else row.share),
            )
            for row in report.rows
        ],
        ReportSource(*origin_document(origin).values()),
    )  # fmt: skip


def job_document(row: JobRow) -> Job:
    """Return a job as it is answered; who submitted it is not said."""
    return Job(
        row.job_id, row.kind, row.state, dict(row.parameters), row.done, row.total, row.error,
        None if row.result is None else dict(row.result), _moment(row.submitted_at), _optional(row.started_at),
        _optional(row.finished_at),
    )  # fmt: skip


def erasure_document(row: RequestState) -> Erasure:
    """Return a request to erase a person as it is answered: without the identifier."""
    return Erasure(
        row.request_id, row.kind, row.mode, row.state, time_text(row.received_at_us), _optional(row.executed_at),
        _optional(row.completed_at), dict(row.removed),
    )  # fmt: skip


def models_document(rows: list[StateSummary]) -> Models:
    """Return the versions of a tenant's models as they are answered."""
    return Models(
        [
            ModelVersion(
                row.model, row.version, row.is_active, row.status, _moment(row.trained_at), _optional(row.activated_at)
            )
            for row in rows
        ]
    )


def job_texts(request: BatchRequest | TrainRequest) -> Mapping[str, str]:
    """Return the parameters of a job as texts, as the command line sends them; what is missing is left out."""
    named = {"since": "from", "until": "to"}
    found = {}
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if value is not None:
            found[named.get(name, name)] = str(value).lower() if isinstance(value, bool) else value
    return found


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _optional(moment: datetime | None) -> str | None:
    return None if moment is None else _moment(moment)
