"""The endpoints as data: what they take, what they answer. Requests are checked by it, and OpenAPI is written from it.

Invariant: a parameter that an endpoint does not name, a repeated one or a value that breaks its rule is refused with
400 and named; nothing is ignored in silence. The text of a refusal never holds a value of the request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import msgspec

from attributary.attribution_core.domain.time_grammar import FORMS, TimeError, parse_local, parse_time
from attributary.consumers.reports.catalog import BY_NAME
from attributary.consumers.reports.origin import SOURCES
from attributary.consumers.store.results.credit_report import DIMENSIONS
from attributary.consumers.store.results.report_reads import DIMENSIONS as NAMES
from attributary.producers.collector.answers import Refusal

API = "/api/v1/attribution"
MAX_PAGE = 1_000
_MAX_TEXT = 800
_MAX_VERSION = 999_999_999
_CURRENCY = re.compile(r"[A-Z]{3}")
_JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Schema = Mapping[str, Any]
Scope = Literal["read", "jobs", "erase"]


class RuleError(ValueError):
    """A value breaks its rule; the text is the rule."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an endpoint.

    Attributes:
        name: as it is written in the request.
        where: part of the request.
        schema: JSON Schema, for the OpenAPI document.
        text: what it does.
        parse: turns its text into a value, or raises ``RuleError``.
        default: value when it is missing; a path always has all of its parameters.
    """

    name: str
    where: Literal["path", "query", "header"]
    schema: Schema
    text: str
    parse: Callable[[str], Any]
    default: Any = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: of HTTP.
        path: below ``API``, with its parameters in braces.
        name: operation id, and name of the handler.
        text: what it answers.
        answer: type of the answer; None: any JSON object.
        parameters: what it takes.
        scope: what the key must allow; None: no key is asked for.
        body: type of the body; None: there is none.
        status: of a good answer.
        refusals: statuses of refusals beside those that every endpoint has.
        is_page: the answer is HTML for a browser, which asks its user for the key.
    """

    method: Literal["GET", "POST"]
    path: str
    name: str
    text: str
    answer: type | None
    parameters: Sequence[Parameter] = ()
    scope: Scope | None = "read"
    body: type | None = None
    status: int = 200
    refusals: Sequence[int] = ()
    is_page: bool = False


def _text(text: str) -> str:
    if not 0 < len(text) <= _MAX_TEXT or not text.isprintable():
        raise RuleError(f"must be 1 to {_MAX_TEXT} printable characters")
    return text


def _time(text: str, parse: Callable[[str, int], Any] = parse_time) -> Any:
    try:
        return parse(text, time.time_ns() // 1_000)
    except TimeError:
        raise RuleError(f"must be {FORMS}") from None


def _whole(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise RuleError(f"must be a whole number from 1 to {most}")
        return int(text)

    return parse


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in names:
            raise RuleError(f"must be one of {', '.join(names)}")
        return text

    return parse


def _list_of(known: Sequence[str] | None, most: int) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        if len(names) > most or not all(name and len(name) <= 64 and name.isprintable() for name in names):
            raise RuleError(f"must be 1 to {most} names, separated by commas")
        if known is not None and not set(names) <= set(known):
            raise RuleError(f"must be of {', '.join(known)}, separated by commas")
        return names

    return parse


def _matching(pattern: re.Pattern[str], rule: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise RuleError(rule)
        return text

    return parse


_STRING = {"type": "string", "minLength": 1, "maxLength": _MAX_TEXT}
_TIMES = {"type": "string", "examples": ["2026-11-01", "30d", "2026-11-01T10:00:00+01:00"]}
_CONVERSION = Parameter("conversion_id", "path", _STRING, "Id of the conversion.", _text)
_SINCE = Parameter("from", "query", _TIMES, "Conversions from this time on; all when missing.", _time)
_UNTIL = Parameter("to", "query", _TIMES, "Conversions before this time.", _time)
_AS_OF = Parameter("as_of", "query", _TIMES, "As it was reported at this time; now when missing.", _time)
_local_time = partial(_time, parse=parse_local)
_DAYS_SINCE = replace(_SINCE, parse=_local_time, text="Conversions from this time on, days in the report's time zone.")
_DAYS_UNTIL = replace(_UNTIL, parse=_local_time)
_CHANGED = Parameter("since", "query", _TIMES, "What changed after it; else since midnight a week ago.", _local_time)
_CURRENCY_OF = Parameter(
    "currency", "query", {"type": "string", "pattern": "^[A-Z]{3}$"}, "Conversions in this currency only.",
    _matching(_CURRENCY, "must be an ISO 4217 code, such as EUR"),
)  # fmt: skip
_TYPE = Parameter("conversion_type", "query", _STRING, "Conversions of this type only.", _text)
_JOB = Parameter(
    "job_id", "path", {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}, "Id of the job.",
    _matching(_JOB_ID, "must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : -"),
)  # fmt: skip
_JOB_KEY = replace(
    _JOB, name="Idempotency-Key", where="header",
    text="Id of the job: sent twice, the job is done once. A new id when missing.",
)  # fmt: skip
_REQUEST = replace(_JOB, name="request_id", text="Id of the request.")
_REQUEST_KEY = replace(
    _JOB_KEY,
    text="Your own id of the request, without personal data: sent twice, it is one request. A new id when missing.",
)
_VERSION = Parameter(
    "version", "query", {"type": "integer", "minimum": 1, "maximum": _MAX_VERSION},
    "This version; the newest when missing.", _whole(_MAX_VERSION),
)  # fmt: skip


def endpoints() -> Sequence[Endpoint]:
    """Return all endpoints, in the order of the document."""
    from attributary.consumers.api import documents as d  # noqa: PLC0415  # msgspec types

    return (
        Endpoint("GET", "/health", "health", "Whether the process and its database answer.", d.Health, scope=None),
        Endpoint(
            "GET", "/results", "results",
            "Results page by page, in the order of time or of conversion ids. Results that arrive meanwhile neither "
            "repeat nor hide others.",
            d.Results,
            (
                _SINCE, _UNTIL, _AS_OF, _TYPE, _CURRENCY_OF,
                Parameter("versions", "query", {"type": "string", "enum": ["newest", "all"], "default": "newest"},
                          "The newest version of each conversion, or all.", _one_of("newest", "all"), "newest"),
                Parameter("order", "query", {"type": "string", "enum": ["time", "conversion"], "default": "time"},
                          "By time of the conversion, or by its id.", _one_of("time", "conversion"), "time"),
                Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
                          "Most results of the page.", _whole(MAX_PAGE), 100),
                Parameter("after", "query", _STRING, "`next` of the page before.", _text),
            ),
        ),
        Endpoint(
            "GET", "/conversions/{conversion_id}/result", "result",
            "The newest result of a conversion. The ETag is its version; If-None-Match answers 304.",
            d.Result, (_CONVERSION, _VERSION, _AS_OF), refusals=(304, 404),
        ),
        Endpoint(
            "GET", "/conversions/{conversion_id}/explain", "explain",
            "Why a conversion is attributed as it is: its events with their verdicts, its person, every touchpoint "
            "that is in or out and why, and each version's reason. The ETag is the version.",
            None, (_CONVERSION,), refusals=(304, 404),
        ),
        Endpoint(
            "GET", "/reports", "reports", "Credit by dimensions and models, with totals that add up.", d.CreditReport,
            (
                _SINCE, _UNTIL, _AS_OF, _TYPE, _CURRENCY_OF,
                Parameter("by", "query", {"type": "string", "default": "channel", "examples": ["channel,day"]},
                          f"Dimensions, separated by commas: {', '.join(DIMENSIONS)}.",
                          _list_of(DIMENSIONS, len(DIMENSIONS)), ("channel",)),
                Parameter("models", "query", {"type": "string", "default": "linear", "examples": ["last,linear"]},
                          "Models side by side, separated by commas.", _list_of(None, 20), ("linear",)),
            ),
        ),
        Endpoint(
            "GET", "/reports/{report}", "report",
            "A report of the catalogue (docs/reference/reports.md): rows, a sentence of finding, notes. The ETag "
            "changes when the answer does.",
            d.ReportDocument,
            (
                Parameter("report", "path", {"type": "string", "enum": list(BY_NAME)}, "Name of the report.",
                          _one_of(*BY_NAME)),
                _DAYS_SINCE, _DAYS_UNTIL, replace(_AS_OF, parse=_local_time), _TYPE, _CURRENCY_OF, _CHANGED,
                Parameter("models", "query", {"type": "string", "examples": ["last,linear"]},
                          "Models, separated by commas; a report of one model takes the first.", _list_of(None, 20)),
                Parameter("by", "query", {"type": "string", "enum": list(NAMES), "default": NAMES[0]},
                          "What the names are.", _one_of(*NAMES), NAMES[0]),
                Parameter("source", "query", {"type": "string", "enum": list(SOURCES), "default": SOURCES[0]},
                          "What it may be computed from; any: the roll-up if it can.", _one_of(*SOURCES), SOURCES[0]),
                Parameter("time_zone", "query", {"type": "string", "examples": ["Europe/Berlin"]},
                          "IANA name of the zone in which days begin; the tenant's when missing.", _text),
                Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 50},
                          "Most names; the rest is one row.", _whole(MAX_PAGE), 50),
            ),
            refusals=(304,),
        ),
        Endpoint(
            "GET", "/report.html", "report_page",
            "The report page, as `attributary report html` writes it. A browser asks for a user name: the secret key, "
            "with an empty password.",
            None,
            (
                _DAYS_SINCE, _DAYS_UNTIL, _CURRENCY_OF, _CHANGED,
                Parameter("model", "query", {"type": "string", "default": "linear"}, "Model of bars and campaigns.",
                          _text, "linear"),
            ),
            refusals=(304, 404), is_page=True,
        ),
        Endpoint(
            "POST", "/analyze/journey", "analyze_journey",
            "Credit one conversion touch by touch, computed now on what is stored, by the models in force. Nothing is "
            "written.", None, body=d.JourneyRequest, refusals=(404,),
        ),
        Endpoint(
            "POST", "/analyze/batch", "analyze_batch", "Analyse conversions as a job.", d.SubmittedJob, (_JOB_KEY,),
            scope="jobs", body=d.BatchRequest, status=202,
        ),
        Endpoint(
            "POST", "/train/markov", "train_markov", "Train Markov as a job.", d.SubmittedJob, (_JOB_KEY,),
            scope="jobs", body=d.TrainRequest, status=202,
        ),
        Endpoint("GET", "/jobs/{job_id}", "job", "A job as it stands.", d.Job, (_JOB,), refusals=(404,)),
        Endpoint(
            "POST", "/erasures", "erase",
            "Ask to erase or suppress a person. The request goes to its topic; its arrival there is the cut-off.",
            d.SubmittedErasure, (_REQUEST_KEY,), scope="erase", body=d.ErasureRequest, status=202,
        ),
        Endpoint(
            "GET", "/erasures/{request_id}", "erasure",
            "Where a request to erase a person stands. The identifier is never answered.",
            d.Erasure, (_REQUEST,), scope="erase", refusals=(404,),
        ),
        Endpoint("GET", "/models/status", "models_status", "Trained versions, and which are in force.", d.Models),
    )  # fmt: skip


def read_parameters(
    endpoint: Endpoint, path: Mapping[str, str], query: Sequence[tuple[str, str]], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of an endpoint's parameters.

    Raises:
        Refusal: 400; a parameter is unknown, repeated or breaks its rule.
    """
    named = {parameter.name: parameter for parameter in endpoint.parameters}
    known = sorted(name for name, parameter in named.items() if parameter.where == "query")
    texts: dict[str, str] = dict(path)
    for name, text in query:
        if name not in known:
            raise Refusal(400, f"A parameter is unknown; there are {', '.join(known) or 'none'}.")
        if name in texts:
            raise Refusal(400, f"{name}: must be given once.", more={"field": name})
        texts[name] = text
    texts |= {name: headers[name] for name, each in named.items() if each.where == "header" and name in headers}
    values = {}
    for name, parameter in named.items():
        try:
            values[name] = parameter.parse(texts[name]) if name in texts else parameter.default
        except RuleError as error:
            raise Refusal(400, f"{name}: {error}.", more={"field": name}) from None
    return values


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API."""
    every = endpoints()
    types = [each for endpoint in every for each in (endpoint.answer, endpoint.body) if each is not None]
    _, components = msgspec.json.schema_components(
        list(dict.fromkeys(types)), ref_template="#/components/schemas/{name}"
    )
    components["Problem"] = {
        "type": "object",
        "description": "Why a request was refused (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
            "detail": {"type": "string"}, "field": {"type": "string"},
        },
    }  # fmt: skip
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in every:
        paths.setdefault(API + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Attributary read API",
            "version": version,
            "description": "Results, reports and jobs of one tenant: that of the key. Money is in micros. Times are "
            "RFC 3339 in UTC. A key has the scopes read, jobs, erase, or some of them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A secret key, sk_..."}},
        },
    }


_REFUSALS = {
    304: "Not changed since the version of If-None-Match.",
    400: "A parameter or the body breaks a rule.",
    401: "There is no live secret key in the request.",
    403: "The key lacks the scope.",
    404: "The tenant has no such thing.",
    413: "The body is too large.",
    415: "The body must be application/json.",
    429: "Too many requests with this key; Retry-After says when to come back.",
    503: "The database or Kafka does not answer in time; Retry-After says when to come back.",
}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    refusals = {400, 503, *endpoint.refusals}
    if endpoint.scope is not None:
        refusals |= {401, 403, 429}
    if endpoint.body is not None:
        refusals |= {413, 415}
    schema = {"type": "object"} if endpoint.answer is None else _reference(endpoint.answer)
    kind = "application/json"
    if endpoint.is_page:
        schema, kind = {"type": "string"}, "text/html"
    answers: dict[str, Any] = {
        str(endpoint.status): {"description": endpoint.text, "content": {kind: {"schema": schema}}}
    }
    for status in sorted(refusals):
        answers[str(status)] = {"description": _REFUSALS[status]}
        if status != 304:
            problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
            answers[str(status)]["content"] = {"application/problem+json": problem}
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.text.split(". ")[0].rstrip("."),
        "description": endpoint.text,
        "security": [] if endpoint.scope is None else [{"key": []}],
        "parameters": [
            {
                "name": each.name, "in": each.where, "required": each.where == "path", "description": each.text,
                "schema": each.schema,
            }
            for each in endpoint.parameters
        ],
        "responses": answers,
    }  # fmt: skip
    if endpoint.body is not None:
        content = {"application/json": {"schema": _reference(endpoint.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
