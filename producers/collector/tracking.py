"""``POST track/event`` and ``POST track/conversion``: one record, a list, or an envelope; JSON, gzip, beacons.

The order of work is that of the costs: key, origin and rate; the size; inflate; split; map and validate all records;
only then send. One answer a record (``answers.batch_answer``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from attributary.producers.collector import metrics
from attributary.producers.collector.access import refused
from attributary.producers.collector.answers import Refusal, batch_answer
from attributary.producers.collector.body import read_body
from attributary.producers.collector.intake import RecordAnswer, Submission
from attributary.producers.collector.mapping import NoEvent, RecordMapper, clock_skew
from attributary.producers.collector.payloads import Batch, Rejected, kind_of, split
from attributary.producers.collector.visits import Visit, cookie_header, is_first_party, visit_of

if TYPE_CHECKING:
    from attributary.producers.collector.app import Collector

_MEDIA_TYPES = frozenset({"application/json", "text/plain"})  # a beacon comes as text/plain: without a preflight
_TRACE_CHARACTERS = 128


class Tracking:
    """The two endpoints.

    Args:
        collector: settings and parts.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def event(self, request: Request) -> Response:
        """Take touchpoints and identity links."""
        return await self._track(request, "event", _map_event)

    async def conversion(self, request: Request) -> Response:
        """Take conversions and their corrections."""
        return await self._track(request, "conversion", _map_conversion)

    async def _track(
        self, request: Request, scope: str, map_record: Callable[[RecordMapper, bytes], Submission]
    ) -> Response:
        collector, config = self._collector, self._collector.config
        key, address = collector.access.admit(request, scope)
        _check_media_type(request)
        try:
            body = await read_body(request, config.max_body_secret if key.is_secret else config.max_body)
            batch = split(body, config.max_records)
            visit = visit_of(request, key, address, config)
            mapper = RecordMapper(
                visit,
                skew_micros=self._skew(request, batch, visit),
                idempotency_key=_idempotency_key(request, batch),
            )
        except Refusal as refusal:
            metrics.rejected.labels("size" if refusal.status == 413 else "body").inc()
            raise
        limit = config.max_record_secret if key.is_secret else config.max_record
        answers, submissions, ignored = _mapped(batch.records, mapper, map_record, limit)
        taken = await collector.intake.take(
            list(submissions.values()), key.tenant, seconds=config.ack_seconds, traceparent=_traceparent(request)
        )
        for index, answer in zip(submissions, taken, strict=True):
            answers[index] = answer
        _count(answers, submissions, ignored)
        every = [answers[index] for index in range(len(batch.records))]
        more = {} if mapper.browser_id is None else {"anonymous_id": mapper.browser_id}
        response = batch_answer(every, ignored=ignored, more=more)
        self._set_cookie(request, response, mapper, visit)
        return response

    def _skew(self, request: Request, batch: Batch, visit: Visit) -> int:
        named = request.query_params.get("sent_at")
        sent_at = batch.sent_at if named is None else _instant_of_query(named)
        try:
            return clock_skew(sent_at, visit.now_micros)
        except Rejected as error:
            raise Refusal(400, f"{error.field} {error.rule}.") from None

    def _set_cookie(self, request: Request, response: Response, mapper: RecordMapper, visit: Visit) -> None:
        """Keep or end the first-party cookie, as the records' consent says."""
        config = self._collector.config
        if visit.key.is_secret or not config.cookie_name or mapper.may_store is None:
            return
        if mapper.may_store is False:
            if any(config.cookie_name in value for value in request.headers.getlist("cookie")):
                response.headers["set-cookie"] = cookie_header(request, None, config)
        elif (found := mapper.browser_id or visit.cookie_id) is not None and is_first_party(request):
            response.headers["set-cookie"] = cookie_header(request, found, config)


def _instant_of_query(text: str) -> str | int:
    """Return an instant as the body would name it; a plus sign of its zone arrives as a blank."""
    return int(text) if re.fullmatch("[0-9]{1,20}", text) else re.sub(r" (\d\d:\d\d)$", r"+\1", text)


def _mapped(
    records: list[bytes], mapper: RecordMapper, map_record: Callable[[RecordMapper, bytes], Submission], limit: int
) -> tuple[dict[int, RecordAnswer], dict[int, Submission], list[int]]:
    """Map all records; return the answers that are known already, what is to be taken, and what is no event."""
    answers: dict[int, RecordAnswer] = {}
    submissions: dict[int, Submission] = {}
    ignored: list[int] = []
    for index, raw in enumerate(records):
        if len(raw) > limit:
            answers[index] = RecordAnswer(None, "rejected", "record", f"must have {limit} bytes at most")
            continue
        try:
            submissions[index] = map_record(mapper, raw)
        except Rejected as error:
            answers[index] = RecordAnswer(error.event_id, "rejected", error.field, error.rule)
        except NoEvent as visit_goes_on:
            ignored.append(index)
            answers[index] = RecordAnswer(visit_goes_on.event_id, "rejected")
    return answers, submissions, ignored


def _map_event(mapper: RecordMapper, raw: bytes) -> Submission:
    kind = _kind_of(raw)
    if kind in {None, "touchpoint"}:
        return mapper.touchpoint(raw)
    if kind == "identity_link":
        return mapper.identity_link(raw)
    raise Rejected("type", "must be touchpoint or identity_link; conversions go to track/conversion")


def _map_conversion(mapper: RecordMapper, raw: bytes) -> Submission:
    if _kind_of(raw) not in {None, "conversion"}:
        raise Rejected("type", "must be conversion; touchpoints and identity links go to track/event")
    return mapper.conversion(raw)


def _kind_of(raw: bytes) -> str | None:
    """Return ``kind_of(raw)``, read only where a field ``type`` can be, however it is written."""
    return kind_of(raw) if b'"type"' in raw or b"\\" in raw or raw[:1] != b"{" else None


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise refused(415, "body", "Content-Type must be application/json, or text/plain with JSON.")


def _idempotency_key(request: Request, batch: Batch) -> str | None:
    """Return the event id that the header Idempotency-Key names (IETF draft 07: a quoted text); None without one."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    if not batch.is_single:
        raise Refusal(400, "Idempotency-Key is for one record; in a list each record names its event_id.")
    text = given.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 0 < len(text) <= 200 or not text.isascii() or not text.isprintable():
        raise Refusal(400, "Idempotency-Key must have 1 to 200 printable ASCII characters.")
    return text


def _traceparent(request: Request) -> str | None:
    given = request.headers.get("traceparent")
    return given if given is not None and len(given) <= _TRACE_CHARACTERS and given.isascii() else None


def _count(answers: dict[int, RecordAnswer], submissions: dict[int, Submission], ignored: list[int]) -> None:
    skipped = frozenset(ignored)
    tally: Counter[tuple[str, str]] = Counter()
    robots = 0
    for index, answer in answers.items():
        submission = submissions.get(index)
        kind = "unknown" if submission is None else submission.name
        outcome = "ignored" if index in skipped else answer.outcome
        tally[kind, outcome] += 1
        if outcome != "rejected" and submission is not None and submission.fields.get("is_bot"):
            robots += 1
    for labels, number in tally.items():
        metrics.records.labels(*labels).inc(number)
        if labels[1] == "rejected":
            metrics.rejected.labels("rule").inc(number)
    if robots:
        metrics.robots.inc(robots)
