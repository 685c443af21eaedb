"""What each endpoint does. A handler's name is the name of its endpoint.

Invariant: the tenant of every query and every job is that of the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import anyio
import msgspec
import psycopg

from attributary.attribution_core.domain.time_grammar import BEGINNING as NO_START
from attributary.attribution_core.domain.time_grammar import END, LocalTime
from attributary.consumers.adapters.job_topic import JobNotSubmittedError, JobRuleError, JobTopic
from attributary.consumers.adapters.policy_settings import models_in_force
from attributary.consumers.api import documents as d
from attributary.consumers.api.endpoints import API, MAX_PAGE
from attributary.consumers.api.pool import ReadPool, StoreBusy
from attributary.consumers.reports.answer import (
    PeriodError,
    ReportOptions,
    UnknownNameError,
    answer,
    document,
    local_micros,
    local_period,
    tenant_zone,
)
from attributary.consumers.reports.catalog import BY_NAME
from attributary.consumers.reports.credit_answer import read_credit
from attributary.consumers.reports.origin import OnlyRollupError
from attributary.consumers.reports.page import page_text
from attributary.consumers.reports.page_facts import read_facts
from attributary.consumers.store.erasure.ledger import show_request
from attributary.consumers.store.events.explain import Explanation, explain
from attributary.consumers.store.jobs.job_views import show_job
from attributary.consumers.store.models.model_states import list_states
from attributary.consumers.store.results.credit_report import ReportQuery, known_models
from attributary.consumers.store.results.result_pages import (
    BEGINNING,
    PageQuery,
    Place,
    published_result,
    result_page,
)
from attributary.consumers.training.journey_analysis import UnknownConversionError, analyze_journey
from attributary.producers.collector.answers import Refusal
from attributary.schemas.topics import JOBS

_SUBMIT_SECONDS = 5.0
_HEALTH_SECONDS = 1.0
_EXPLAINED = ("events", "links", "touches", "versions", "conflicts")


@dataclass(frozen=True, slots=True)
class Call:
    """One request after its checks: tenant and name of its key, values of its parameters, its body."""

    tenant_id: str
    key_id: str
    values: Mapping[str, Any]
    body: Any = None

    @property
    def period_us(self) -> tuple[int, int]:
        """The parameters `from` and `to`, microseconds UTC."""
        return self._bounds()

    @property
    def local_period(self) -> tuple[int | LocalTime, int | LocalTime]:
        """The same where days are those of the tenant or of the parameter `time_zone`."""
        return self._bounds()

    def _bounds(self) -> tuple[Any, Any]:
        """Return both as the endpoint parses them."""
        since, until = self.values["from"], self.values["to"]
        return NO_START if since is None else since, END if until is None else until

    @property
    def as_of_us(self) -> int:
        """The parameter `as_of`, microseconds UTC."""
        return END if self.values["as_of"] is None else int(self.values["as_of"])


@dataclass(frozen=True, slots=True)
class Answer:
    """A document, its status, and the version that its ETag names; None: it has none."""

    document: Any
    etag: str | None = None
    location: str | None = None


class Handlers:
    """The endpoints' work.

    Args:
        pool: connections that read.
        jobs: takes jobs and requests to erase people; None: none can be submitted here.
        inactivity_micros: after so long without a touchpoint a journey ends; as the trainer's setting.
    """

    def __init__(self, pool: ReadPool, jobs: JobTopic | None, inactivity_micros: int) -> None:
        self._pool = pool
        self._jobs = jobs
        self._inactivity = inactivity_micros

    async def health(self, _call: Call) -> Answer:
        """Answer 200 also when the database is away: the process itself is healthy."""
        database = "away"
        with anyio.move_on_after(_HEALTH_SECONDS):
            try:
                await self._pool.run(lambda connection: connection.execute("SELECT 1"), None)
                database = "ok"
            except StoreBusy:
                pass
        return Answer(d.Health("ok", database))

    async def results(self, call: Call) -> Answer:
        """Return a page of results."""
        values = call.values
        query = PageQuery(
            call.tenant_id,
            call.period_us,
            call.as_of_us,
            values["versions"] == "all",
            values["order"],
            values["conversion_type"],
            values["currency"],
            BEGINNING if values["after"] is None else place_of(values["after"]),
            min(values["limit"], MAX_PAGE),
        )
        page = await self._pool.run(lambda connection: result_page(connection, query), call.tenant_id)
        following = None if page.following is None else text_of(page.following)
        return Answer(d.Results([d.result_document(row) for row in page.results], following))

    async def result(self, call: Call) -> Answer:
        """Return one result of a conversion."""
        conversion_id = call.values["conversion_id"]
        found = await self._pool.run(
            lambda connection: published_result(
                connection, call.tenant_id, conversion_id, version=call.values["version"], as_of_us=call.as_of_us
            ),
            call.tenant_id,
        )
        if found is None:
            raise Refusal(404, "The tenant has no such result.")
        return Answer(d.result_document(found), etag=f"{found.version}-{found.content_hash}")

    async def explain(self, call: Call) -> Answer:
        """Explain a conversion."""
        found = await self._pool.run(
            lambda connection: explain(connection, call.tenant_id, call.values["conversion_id"]), call.tenant_id
        )
        if found is None:
            raise Refusal(404, "The tenant has no such conversion: no event about it is stored.")
        return Answer(_explanation(found), etag=f"{found.conversion.version}-{found.conversion.observed_version}")

    async def reports(self, call: Call) -> Answer:
        """Return credit by dimensions and models."""
        asked = ReportQuery(
            call.tenant_id,
            call.values["models"],
            call.values["by"],
            call.period_us,
            call.as_of_us,
            call.values["currency"],
            () if call.values["conversion_type"] is None else (call.values["conversion_type"],),
        )

        def read(connection: psycopg.Connection) -> d.CreditReport:
            query = replace(asked, zone=tenant_zone(connection, call.tenant_id))
            report, origin = read_credit(connection, query)
            if report.totals and not {use.model for use in report.uses}.issuperset(query.models):
                known = known_models(connection, query)
                if known and not set(known).issuperset(query.models):
                    raise Refusal(400, f"models: there are {', '.join(known)}.", more={"field": "models"})
            return d.report_document(query, report, origin)

        return Answer(await self._pool.run(read, call.tenant_id))

    async def report(self, call: Call) -> Answer:
        """Return a report of the catalogue."""
        values = call.values
        options = ReportOptions(
            values["models"], values["by"], values["since"], values["currency"],
            () if values["conversion_type"] is None else (values["conversion_type"],), values["time_zone"],
            values["limit"], values["source"],
        )  # fmt: skip
        now_us = time.time_ns() // 1_000

        def read(connection: psycopg.Connection) -> dict[str, Any]:
            try:
                return document(
                    answer(
                        connection,
                        BY_NAME[values["report"]],
                        call.tenant_id,
                        call.local_period,
                        END if values["as_of"] is None else values["as_of"],
                        now_us,
                        options,
                    )
                )
            except UnknownNameError as error:
                raise Refusal(400, f"{error}.", more={"field": error.parameter}) from None
            except PeriodError as error:
                raise Refusal(400, f"to: {error}.", more={"field": "to"}) from None
            except OnlyRollupError as error:
                raise Refusal(400, f"source: {error}.", more={"field": "source"}) from None

        found = await self._pool.run(read, call.tenant_id)
        return Answer(found, etag=hashlib.blake2b(msgspec.json.encode(found), digest_size=16).hexdigest())

    async def report_page(self, call: Call) -> Answer:
        """Return the report page."""
        now_us = time.time_ns() // 1_000
        values = call.values
        since = values["since"]

        def read(connection: psycopg.Connection) -> str:
            zone = tenant_zone(connection, call.tenant_id)
            try:
                period = local_period(call.local_period, zone)
            except PeriodError as error:
                raise Refusal(400, f"to: {error}.", more={"field": "to"}) from None
            query = ReportQuery(call.tenant_id, (values["model"],), ("channel",), period, now_us, values["currency"])
            facts = read_facts(connection, query, values["model"], None if since is None else local_micros(since, zone))
            if facts is None:
                raise Refusal(404, "The tenant has no conversion in this period, or none that this model credits.")
            return page_text(facts)

        text = await self._pool.run(read, call.tenant_id)
        return Answer(text, etag=hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=16).hexdigest())

    async def analyze_journey(self, call: Call) -> Answer:
        """Credit one conversion now, by the models in force."""

        def read(connection: psycopg.Connection) -> dict[str, Any]:
            models = models_in_force(connection, call.tenant_id)
            return analyze_journey(connection, call.tenant_id, call.body.conversion_id, models, self._inactivity)

        try:
            return Answer(await self._pool.run(read, call.tenant_id))
        except UnknownConversionError:
            raise Refusal(404, "The tenant has no such conversion, or only corrections of it have arrived.") from None

    async def analyze_batch(self, call: Call) -> Answer:
        """Submit an analysis."""
        return await self._submit(call, "analyze_batch", d.job_texts(call.body))

    async def train_markov(self, call: Call) -> Answer:
        """Submit a training."""
        return await self._submit(call, "train", {"model": "markov", **d.job_texts(call.body)})

    async def job(self, call: Call) -> Answer:
        """Return a job."""
        found = await self._pool.run(
            lambda connection: show_job(connection, call.tenant_id, call.values["job_id"]), call.tenant_id
        )
        if found is None:
            raise Refusal(404, "The tenant has no such job. A trainer stores a new job when it reads it.")
        return Answer(d.job_document(found))

    async def erase(self, call: Call) -> Answer:
        """Submit a request to erase a person."""
        if self._jobs is None:
            raise Refusal(503, "Requests cannot be submitted here: KAFKA_BOOTSTRAP_SERVERS is not set.")
        jobs, body = self._jobs, call.body
        request_id = call.values["Idempotency-Key"] or f"erasure-{uuid.uuid4().hex[:12]}"
        try:
            await anyio.to_thread.run_sync(
                lambda: jobs.request_erasure(
                    call.tenant_id, request_id, body.kind, body.identifier, body.mode or "delete",
                    seconds=_SUBMIT_SECONDS,
                )
            )  # fmt: skip
        except JobRuleError as error:
            raise Refusal(400, f"{error}.", more={"field": str(error).partition(":")[0]}) from None
        except JobNotSubmittedError:
            raise StoreBusy("Kafka did not take the request. Send it again with the same Idempotency-Key.") from None
        url = f"{API}/erasures/{request_id}"
        return Answer(d.SubmittedErasure(request_id, url), location=url)

    async def erasure(self, call: Call) -> Answer:
        """Return where a request stands."""
        found = await self._pool.run(
            lambda connection: show_request(connection, call.tenant_id, call.values["request_id"]), call.tenant_id
        )
        if found is None:
            raise Refusal(404, "The tenant has no such request. The stitcher stores a new one when it reads it.")
        return Answer(d.erasure_document(found))

    async def models_status(self, call: Call) -> Answer:
        """Return the versions of the tenant's models."""
        return Answer(
            d.models_document(
                await self._pool.run(lambda connection: list_states(connection, call.tenant_id), call.tenant_id)
            )
        )

    async def _submit(self, call: Call, kind: str, texts: Mapping[str, str]) -> Answer:
        from attributary.consumers.trainer.job_requests import JobParameterError, Parameters  # noqa: PLC0415

        if self._jobs is None:
            raise Refusal(503, f"Jobs cannot be submitted here: KAFKA_BOOTSTRAP_SERVERS is not set ({JOBS}).")
        jobs = self._jobs
        job_id = call.values["Idempotency-Key"] or f"{kind}-{uuid.uuid4().hex[:12]}"
        try:
            Parameters(kind, texts).check(call.tenant_id)
            await anyio.to_thread.run_sync(
                lambda: jobs.submit(
                    call.tenant_id, job_id, kind, texts, submitted_by=f"key {call.key_id}", seconds=_SUBMIT_SECONDS
                )
            )
        except JobParameterError as error:
            raise Refusal(400, _without_values(str(error)), more={"field": str(error).partition(":")[0]}) from None
        except JobRuleError as error:
            raise Refusal(400, f"{error}.") from None
        except JobNotSubmittedError:
            raise StoreBusy("Kafka did not take the job. Send it again with the same Idempotency-Key.") from None
        url = f"{API}/jobs/{job_id}"
        return Answer(d.SubmittedJob(job_id, url), location=url)


def text_of(place: Place) -> str:
    """Return the place where a page ends as the opaque text that a client hands back."""
    return base64.urlsafe_b64encode(msgspec.json.encode(tuple(place))).decode().rstrip("=")


def place_of(text: str) -> Place:
    """Return the place that a text of ``text_of`` names.

    Raises:
        Refusal: it names none.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        place = Place(*msgspec.json.decode(raw, type=tuple[int, str, int]))
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise Refusal(400, "after: must be `next` of the page before.", more={"field": "after"}) from None
    if not (-1 <= place.converted_at_us <= END and 0 <= place.version < 1 << 62 and "\0" not in place.conversion_id):
        raise Refusal(400, "after: must be `next` of the page before.", more={"field": "after"})
    return place


def _without_values(text: str) -> str:
    """Return the message of a parameter without what the client wrote: it may quote the value."""
    name, _, rule = text.partition(": ")
    return f"{name}: breaks a rule; see docs/how-to/jobs.md." if "'" in rule else f"{name}: {rule}."


def _explanation(found: Explanation) -> dict[str, Any]:
    return {
        "conversion": found.conversion._asdict(),
        **{name: [row._asdict() for row in getattr(found, name)] for name in _EXPLAINED},
    }
