"""Answers over HTTP: problem+json (RFC 9457), the answer of a batch, and headers that every answer has.

Invariant: no text of an answer holds a value of the request, only names of fields, rules, limits and event ids. 4xx
stands only for what the same request cannot mend; 408, 429 and 5xx for what a later try can.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from attributary.producers.collector.intake import RecordAnswer

SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
RETRY_SECONDS = 5

_COMMON = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

_encode = msgspec.json.Encoder().encode


class Refusal(Exception):
    """The request ends here.

    Args:
        status: HTTP status.
        detail: a sentence for the developer of the client; never a value of the request.
        headers: further headers of the answer.
        more: further members of the problem.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more or {}


def problem(refusal: Refusal) -> Response:
    """Return the answer of a refused request."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        **refusal.more,
    }
    return json_answer(refusal.status, document, {"Content-Type": "application/problem+json", **refusal.headers})


class _Json(Response):
    """A JSON answer; what all have in common is encoded once."""

    def __init__(self, content: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.status_code = status
        self.background = None
        self.body = content
        self.raw_headers = [*_COMMON, (b"content-length", str(len(content)).encode())]
        self.raw_headers += [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]


def json_answer(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer with the headers that every answer has."""
    return _Json(_encode(document), status, {"Content-Type": "application/json", **(headers or {})})


def retry_after() -> dict[str, str]:
    """Return a ``Retry-After`` with jitter, so that clients do not come back together."""
    return {"Retry-After": str(RETRY_SECONDS + secrets.randbelow(RETRY_SECONDS))}


def batch_answer(
    answers: Sequence[RecordAnswer], *, ignored: Iterable[int] = (), more: Mapping[str, Any] | None = None
) -> Response:
    """Return the answer of the tracking endpoints for the records of one request.

    Args:
        answers: one a record, in the order of the request.
        ignored: indexes of valid records that are no event, such as a page view inside a visit.
        more: further members.
    """
    skipped = frozenset(ignored)
    kept = [each for each in answers if each.outcome in {"accepted", "spooled"}]
    rejected = [
        {"index": index, "event_id": each.event_id, "field": each.field, "rule": each.rule}
        for index, each in enumerate(answers)
        if each.outcome == "rejected" and index not in skipped
    ]
    retry = [
        {"index": index, "event_id": each.event_id} for index, each in enumerate(answers) if each.outcome == "retry"
    ]
    if rejected and not kept and not retry and not skipped:
        return problem(Refusal(400, "No record of the request is valid.", more={"rejected": rejected}))
    if retry and not kept:
        return problem(
            Refusal(503, "Neither the log nor the spool takes records now. Send the request again.",
                    retry_after(), {"retry": retry} | ({"rejected": rejected} if rejected else {}))
        )  # fmt: skip
    spooled = sum(each.outcome == "spooled" for each in kept)
    document: dict[str, Any] = {"accepted": len(kept) - spooled, "event_ids": [each.event_id for each in kept]}
    parts = {"spooled": spooled, "rejected": rejected, "retry": retry, "ignored": sorted(skipped)}
    document |= {name: part for name, part in parts.items() if part}
    return json_answer(202 if spooled else 200, document | dict(more or {}), retry_after() if retry else None)
