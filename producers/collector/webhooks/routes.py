"""``POST webhooks/<path>``: one delivery of a provider, from bytes to an answer that the provider understands.

1. An unknown path is 404, before the body is read.
2. The body is read as it was sent: a signature is over these bytes, so a compressed body is refused (415).
3. ``WebhookReceiver`` checks the signature and maps the delivery.
4. Its records go through the same intake as those of pages: sealed, sent, waited for, else spooled.
5. 200 when all are kept, in the log or in the spool. 503 when one is not: the provider delivers again, and the records
   have the same ids and bytes. WooCommerce alone delivers nothing again; for it the spool must be on.

What was signed and could not be recorded is answered 200, counted, logged without a value, and written to the folder of
unmapped deliveries when there is one.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from attributary.producers.collector import metrics
from attributary.producers.collector.answers import SECURITY_HEADERS, Refusal, json_answer, retry_after
from attributary.producers.collector.body import read_body
from attributary.producers.collector.intake import Submission

from .letters import UnmappedFolder
from .outcome import LeftOut, WebhookOutcome
from .receive import WebhookReceiver, meta_challenge
from .settings_file import read_sources

if TYPE_CHECKING:
    from attributary.producers.collector.app import Collector

ENDPOINTS = ("/webhooks/",)
_OUTCOMES = ("accepted", "spooled", "retry", "ignored", "unmapped", "refused")
_LONGEST_WAIT_SECONDS = 3.0  # Shopify gives up after 5

logger = logging.getLogger("attributary.collector")


def routes(collector: Collector) -> list[BaseRoute]:
    """Return the routes of the webhook sources of the settings; none without a file of sources.

    Raises:
        SourceError: the file or a mapping cannot be used.
        UnmappedFolderError: the folder of unmapped deliveries cannot be used.
    """
    file = collector.config.webhooks_file
    if file is None:
        return []
    sources = [source for source in read_sources(file, os.environ) if source.path_id]
    edge = WebhookEdge(collector, [WebhookReceiver(source, file.parent) for source in sources])
    return [
        Route("/webhooks/{path_id}", edge.deliver, methods=["POST"]),
        Route("/webhooks/{path_id}", edge.challenge, methods=["GET"]),
    ]


class WebhookEdge:
    """The addresses of all sources.

    Args:
        collector: settings and parts.
        receivers: one a source.
    """

    def __init__(self, collector: Collector, receivers: list[WebhookReceiver]) -> None:
        self._collector = collector
        self._receivers = {receiver.source.path_id: receiver for receiver in receivers}
        folder = collector.config.webhooks_unmapped
        self._letters = None if folder is None else UnmappedFolder(folder)
        for receiver in receivers:  # from zero on, so that the first one is an increase
            for outcome in _OUTCOMES:
                metrics.webhook_deliveries.labels(receiver.source.provider, receiver.source.name, outcome)

    async def deliver(self, request: Request) -> Response:
        """Take one delivery."""
        receiver = self._receiver(request)
        source = receiver.source
        if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise Refusal(415, "A signed body must not be compressed.")
        body = await read_body(request, self._collector.config.max_body_secret)
        headers = {name.lower(): value for name, value in request.headers.items()}
        outcome = receiver.receive(body, headers, time.time())
        answer, answered = await self._answer(outcome, source.tenant_id)
        metrics.webhook_deliveries.labels(source.provider, source.name, answered).inc()
        self._note(source.name, source.provider, outcome)
        if outcome.outcome == "unmapped" and self._letters is not None:
            await self._letters.keep(source.name, headers, body)
        return answer

    async def challenge(self, request: Request) -> Response:
        """Answer Meta's set-up call."""
        source = self._receiver(request).source
        if source.provider != "meta_leads":
            raise Refusal(405, "The path does not take this method.", {"Allow": "POST"})
        outcome = meta_challenge(source, dict(request.query_params))
        metrics.webhook_deliveries.labels(source.provider, source.name, outcome.outcome).inc()
        if outcome.outcome == "refused":
            raise Refusal(outcome.status, "The verify token is not that of the source.")
        return PlainTextResponse(outcome.reply, headers=dict(SECURITY_HEADERS))

    def _receiver(self, request: Request) -> WebhookReceiver:
        receiver = self._receivers.get(request.path_params["path_id"])
        if receiver is None:
            raise Refusal(404, "There is nothing at this path.")
        return receiver

    async def _answer(self, outcome: WebhookOutcome, tenant: str) -> tuple[Response, str]:
        """Keep the records; return the answer, and what became of the delivery."""
        if outcome.outcome == "refused":
            return json_answer(outcome.status, {"outcome": "refused", "reason": outcome.left_out[0].reason}), "refused"
        if not outcome.records:
            return json_answer(200, {"outcome": outcome.outcome, "records": 0}), outcome.outcome
        seconds = min(self._collector.config.ack_seconds, _LONGEST_WAIT_SECONDS)
        submissions = [Submission(record.name, record.fields) for record in outcome.records]
        answers = await self._collector.intake.take(submissions, tenant, seconds=seconds)
        for submission, answer in zip(submissions, answers, strict=True):
            metrics.records.labels(submission.name, answer.outcome).inc()
        if any(answer.outcome == "retry" for answer in answers):
            return json_answer(503, {"outcome": "retry", "records": 0}, retry_after()), "retry"
        kept = [answer for answer in answers if answer.outcome in {"accepted", "spooled"}]
        for answer in answers:
            if answer.outcome == "rejected":
                logger.warning("a webhook's record was rejected: %s %s", answer.field, answer.rule)
        if not kept:
            return json_answer(200, {"outcome": "unmapped", "records": 0}), "unmapped"
        spooled = any(answer.outcome == "spooled" for answer in kept)
        return json_answer(200, {"outcome": "accepted", "records": len(kept)}), "spooled" if spooled else "accepted"

    def _note(self, name: str, provider: str, outcome: WebhookOutcome) -> None:
        for left in outcome.left_out:
            metrics.webhook_left_out.labels(provider, left.reason).inc()
            if left.reason == "unmapped":
                logger.warning("webhook %s: %s is not recorded: %s %s", name, _shown(left), left.field, left.rule)


def _shown(left: LeftOut) -> str:
    return left.what if left.what.isprintable() else "a delivery"
