"""Who sees what: keys, scopes, tenants; and what is refused, by name and without a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.adapters.job_topic import JobNotSubmittedError
from attributary.consumers.api.endpoints import endpoints
from attributary.consumers.store.connection import connect
from attributary.consumers.store.erasure.entries import RequestRow
from attributary.consumers.store.erasure.ledger import finish_request, store_requests
from attributary.schemas.topics import ERASURE_REQUESTS
from tests.api.conftest import served
from tests.factories.samples import codec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres
BASE = "/api/v1/attribution"
PATHS = [
    (each.method, each.path.format(conversion_id="order-00", job_id="j", request_id="r", report="models"))
    for each in endpoints()
    if each.scope is not None
]


def body_of(method: str) -> dict[str, Any]:
    return {"json": {}} if method == "POST" else {}


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(("key", "status"), [(None, 401), ("revoked", 401), ("writes", 403)])
def test_every_endpoint_wants_a_live_key_with_its_scope(
    api: Api, method: str, path: str, key: str | None, status: int
) -> None:
    answer = api.ask(BASE + path, key, method=method, **body_of(method))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/analyze/batch", "/train/markov"])
def test_a_key_that_only_reads_submits_no_job(api: Api, path: str) -> None:
    assert api.ask(BASE + path, "other", method="POST", json={}).status_code == 403


def test_a_secret_key_in_the_url_is_refused(api: Api) -> None:
    answer = api.ask(f"{BASE}/results?k={api.tokens['acme']}", None)
    assert answer.status_code == 401
    assert api.tokens["acme"] not in answer.text


@pytest.mark.parametrize("path", ["result", "explain"])
def test_another_tenants_conversion_is_not_there(api: Api, path: str) -> None:
    assert api.ask(f"{BASE}/conversions/order-05/{path}", "other").status_code == 404
    assert api.ask(f"{BASE}/conversions/order-05/{path}", "acme").status_code == 200


def test_another_tenant_sees_its_own_alone(api: Api) -> None:
    results = api.good(f"{BASE}/results", "other")["results"]
    assert [(result["conversion_id"], len(result["touchpoints"])) for result in results] == [("order-00", 1)]
    answer = api.ask(f"{BASE}/analyze/journey", "other", method="POST", json={"conversion_id": "order-05"})
    assert answer.status_code == 404
    assert api.good(f"{BASE}/reports", "other")["totals"][0]["conversions"] == 1


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/results?from=secret-x", "from"),
        ("/results?to=2026-13-01secret-x", "to"),
        ("/results?limit=0", "limit"),
        ("/results?limit=1001", "limit"),
        ("/results?limit=secret-x", "limit"),
        ("/results?order=secret-x", "order"),
        ("/results?versions=secret-x", "versions"),
        ("/results?currency=secret-x", "currency"),
        ("/results?after=secret-x", "after"),
        ("/results?after=WzEsImEiXQ", "after"),
        ("/results?conversion_type=%00secret-x", "conversion_type"),
        ("/results?limit=1&limit=2", "limit"),
        ("/conversions/order-00/result?version=secret-x", "version"),
        ("/conversions/order-00/result?version=99999999999999999999", "version"),
        ("/conversions/%00secret-x/result", "conversion_id"),
        ("/reports?by=secret-x", "by"),
        ("/reports?models=", "models"),
        ("/reports?models=secret-x", "models"),
        ("/jobs/secret-x%20", "job_id"),
        ("/results?secret-x=1", None),
        ("/models/status?secret-x=1", None),
    ],
)
def test_a_wrong_parameter_is_named_and_its_value_is_not(api: Api, path: str, field: str | None) -> None:
    answer = api.ask(BASE + path)
    assert answer.status_code == 400
    assert answer.json().get("field") == field
    assert "secret-x" not in answer.text


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        (b"x" * 70_000, {"Content-Type": "application/json"}, 413),
        (b"", {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 400),
        (b"[" * 60_000, {"Content-Type": "application/json"}, 400),
        (b'{"conversion_id": 1}', {"Content-Type": "application/json"}, 400),
        (b'{"conversion_id": "\xff"}', {"Content-Type": "application/json"}, 400),
        (b'{"secret-x": "a"}', {"Content-Type": "application/json"}, 400),
        (b'{"conversion_id": "a\\u0000"}', {"Content-Type": "application/json"}, 400),
    ],
)
def test_a_wrong_body_is_refused(api: Api, content: bytes, headers: dict[str, str], status: int) -> None:
    answer = api.ask(f"{BASE}/analyze/journey", method="POST", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert "secret-x" not in answer.text


def test_a_job_is_submitted_for_the_tenant_of_the_key(api: Api) -> None:
    api.jobs.jobs.clear()
    answer = api.ask(
        f"{BASE}/train/markov",
        method="POST",
        json={"from": "2026-11-01", "activate": True},
        headers={"Idempotency-Key": "mine-1"},
    )
    assert (answer.status_code, answer.json()) == (202, {"job_id": "mine-1", "url": f"{BASE}/jobs/mine-1"})
    assert answer.headers["location"] == f"{BASE}/jobs/mine-1"
    expected = {"model": "markov", "from": "2026-11-01", "activate": "true"}
    assert api.jobs.jobs == [("acme", "mine-1", "train", expected)]
    made_up = api.ask(f"{BASE}/analyze/batch", method="POST", json={"platform": "meta"}).json()["job_id"]
    assert api.jobs.jobs[1] == ("acme", made_up, "analyze_batch", {"platform": "meta"})


@pytest.mark.parametrize("body", [{"from": "secret-x"}, {"closing": "secret-x"}, {"from": "now", "to": "2020-01-01"}])
def test_a_job_that_the_trainer_would_refuse_is_refused_here(api: Api, body: dict[str, str]) -> None:
    answer = api.ask(f"{BASE}/train/markov", method="POST", json=body)
    assert answer.status_code == 400, answer.text
    assert "secret-x" not in answer.text


def test_kafka_away_is_503_and_the_same_key_may_be_sent_again(api: Api) -> None:
    api.jobs.refuses = JobNotSubmittedError("broker at 10.1.2.3 is away")
    try:
        answer = api.ask(f"{BASE}/train/markov", method="POST", json={})
    finally:
        api.jobs.refuses = None
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "10.1.2.3" not in answer.text


def test_a_path_and_a_method_that_are_not_there(api: Api) -> None:
    assert api.ask("/").json()["status"] == 404
    assert api.ask(f"{BASE}/results", method="DELETE").json()["status"] == 405


def test_the_rate_of_a_key_is_bounded(shop: str, tmp_path: Path) -> None:
    with served(shop, tmp_path, SERVE_REQUESTS_PER_SECOND=1) as api:
        answers = [api.ask(f"{BASE}/models/status") for _ in range(12)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 3 <= len(refused) <= 8
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_an_erasure_is_requested_for_the_tenant_of_the_key_and_followed(api: Api, shop: str) -> None:
    api.jobs.requests.clear()
    body = {"kind": "user", "identifier": "customer-4711"}
    answer = api.ask(
        f"{BASE}/erasures", "erases", method="POST", json=body, headers={"Idempotency-Key": "ticket-1"}
    )  # fmt: skip
    assert (answer.status_code, answer.json()) == (202, {"request_id": "ticket-1", "url": f"{BASE}/erasures/ticket-1"})
    assert answer.headers["location"] == f"{BASE}/erasures/ticket-1"
    (message,) = api.jobs.requests
    assert message.topic == ERASURE_REQUESTS
    record = codec().decode("erasure_request", message.value)
    assert record | {"requested_at": 0} == {
        "tenant_id": "acme", "request_id": "ticket-1", "kind": "user", "identifier": "customer-4711", "mode": "delete",
        "requested_at": 0,
    }  # fmt: skip
    assert api.ask(f"{BASE}/erasures/ticket-1", "erases").status_code == 404  # nobody has read it
    row = RequestRow("acme", "ticket-1", "user", "delete", "customer-4711", 1, 1, None)
    with connect(shop, application_name="tests") as connection:
        store_requests(connection, [row, row._replace(request_id="followed", derived_from="event")])
        connection.commit()
    pending = api.good(f"{BASE}/erasures/ticket-1", "erases")
    assert (pending["state"], pending["kind"], pending["removed"]) == ("pending", "user", {})
    assert pending["received_at"].startswith("1970-01-01T00:00:00")
    assert "customer-4711" not in str(pending)
    assert api.ask(f"{BASE}/erasures/followed", "erases").status_code == 404
    with connect(shop, application_name="tests") as connection:
        finish_request(connection, row, b"hash", {"touchpoints": 3})
        connection.commit()
    done = api.good(f"{BASE}/erasures/ticket-1", "erases")
    assert (done["state"], done["removed"]) == ("in_progress", {"touchpoints": 3})
    assert done["executed_at"] is not None


@pytest.mark.parametrize("path", ["/erasures", "/erasures/ticket-1"])
def test_only_the_scope_erase_reaches_erasures(api: Api, path: str) -> None:
    method = "POST" if path == "/erasures" else "GET"
    body = {"json": {"kind": "user", "identifier": "x"}} if method == "POST" else {}
    assert api.ask(BASE + path, "other", method=method, **body).status_code == 403
    assert api.ask(f"{BASE}/results", "erases").status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "secret-x", "identifier": "a"}, "kind"),
        ({"kind": "conversion", "identifier": "secret-x"}, "kind"),
        ({"kind": "user", "identifier": "secret-x", "mode": "secret-x"}, "mode"),
        ({"kind": "email", "identifier": "secret-x@example.com"}, "identifier"),
        ({"kind": "user", "identifier": "secret-x" * 200}, None),
        ({"kind": "user"}, None),
    ],
)
def test_a_wrong_request_is_refused_without_its_identifier(api: Api, body: dict[str, str], field: str | None) -> None:
    answer = api.ask(f"{BASE}/erasures", method="POST", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json().get("field") == field
    assert "secret-x" not in answer.text


def test_a_request_that_kafka_did_not_take_is_503(api: Api) -> None:
    api.jobs.refuses = JobNotSubmittedError("broker at 10.1.2.3 is away")
    try:
        answer = api.ask(f"{BASE}/erasures", method="POST", json={"kind": "user", "identifier": "customer-4711"})
    finally:
        api.jobs.refuses = None
    assert answer.status_code == 503
    assert "customer-4711" not in answer.text
    assert "10.1.2.3" not in answer.text
