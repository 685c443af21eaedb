"""The report page as `serve` shows it: to a browser that asks its user for the key, and to nobody else."""

from __future__ import annotations

import html
import re
from datetime import date
from typing import TYPE_CHECKING

import pytest

from attributary.attribution_core.spend.slices import Given, SliceKey, SpendRow
from attributary.consumers.store.connection import connect
from attributary.consumers.store.spend.slices import Slice, store_slices
from tests.api.conftest import served
from tests.fixtures.role_logins import stage_logins

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres
PAGE = "/api/v1/attribution/report.html"


def test_a_reader_with_a_key_gets_the_page(api: Api) -> None:
    answer = api.ask(PAGE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert re.search(r"style-src 'sha256-[^']+'", answer.headers["content-security-policy"])
    assert "<dd>25</dd>" in answer.text
    assert "Attribution of acme" in answer.text
    other = api.ask(PAGE, key="other")
    assert "Attribution of other" in other.text
    assert "acme" not in other.text
    assert "paid_search" not in other.text


def test_a_reader_without_a_key_is_asked_for_it(api: Api) -> None:
    for key in (None, "revoked"):
        refused = api.ask(PAGE, key=key)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert "order-" not in refused.text
    assert api.ask(PAGE, key="writes").status_code == 403
    assert api.ask("/api/v1/attribution/reports", key=None).headers["www-authenticate"].startswith("Bearer ")


def test_what_is_not_there_is_said(api: Api) -> None:
    assert api.ask(f"{PAGE}?from=2020-01-01&to=2020-02-01").status_code == 404
    assert api.ask(f"{PAGE}?model=nosuch").status_code == 404
    refused = api.ask(f"{PAGE}?currency=euro")
    assert (refused.status_code, refused.json()["field"]) == (400, "currency")


def test_a_browser_shows_the_page_with_its_style(api: Api, chromium: Browser) -> None:
    said: list[str] = []
    with chromium.new_context(http_credentials={"username": api.tokens["acme"], "password": ""}) as context:
        context.set_default_timeout(180_000)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        answer = page.goto(f"{api.url}{PAGE}")
        assert answer is not None
        assert answer.status == 200
        assert page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "960px"
        assert page.title() == "Attribution of acme"
    assert said == []


def test_a_login_of_the_api_role_shows_spend_of_the_tenant_of_the_key_alone(shop: str, tmp_path: Path) -> None:
    with connect(shop, application_name="tests") as connection:
        for tenant, name in (("acme", "Autumn"), ("other", "Secret")):
            row = SpendRow("c", "EUR", 12_340_000, campaign_id="c", campaign_name=name)
            store_slices(
                connection, tenant, [Slice(SliceKey("meta", "a", date(2026, 11, 1), "campaign"), Given([row]))]
            )
        connection.commit()
    with stage_logins(shop) as logins, served(logins["serve"], tmp_path) as api:
        answer = api.ask(PAGE)
    assert answer.status_code == 200, answer.text
    assert "12.34 EUR of 12.34 EUR is spend of 1 campaign" in answer.text
    assert "meta a/c 'Autumn'" in html.unescape(answer.text)
    assert "Secret" not in answer.text
