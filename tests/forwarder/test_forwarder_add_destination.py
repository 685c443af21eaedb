"""The made-up destination of docs/how-to/add-destination.md works as it stands on the page."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from attributary.consumers.destinations import account_fields
from attributary.consumers.destinations.account_fields import AccountFields
from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import Credentials
from attributary.consumers.destinations.destination import Destination
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.sender import BatchSender
from attributary.consumers.destinations.transport import HttpTransport
from attributary.consumers.forwarder.stage import ForwarderStage, Route
from attributary.consumers.runtime.settings import load
from attributary.local.fakes import Fault
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import SimulatedClock, conversion, records

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-destination.md"
PACKAGE = "attributary.consumers.destinations.bazaar"


class Bazaar(NamedTuple):
    destination: Any
    settings: Any
    fake: Any


@pytest.fixture
def bazaar(monkeypatch: pytest.MonkeyPatch) -> Bazaar:
    """The four blocks of the page as modules, for this test only."""
    events, responses, settings, fake = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.setitem(
        account_fields.ACCOUNT_FIELDS,
        "bazaar",
        AccountFields(("shop_id",), ("access_token",)),
    )
    package = types.ModuleType(PACKAGE)
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    made = {}
    for name, source in (("responses", responses), ("destination", events), ("settings", settings), ("fake", fake)):
        # A name of its own, so that the list of all settings does not find the class.
        module = made[name] = types.ModuleType(f"page.bazaar.{name}")
        exec(compile(source, str(PAGE), "exec", dont_inherit=True), module.__dict__)  # noqa: S102  # the page's own example
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, f"{PACKAGE}.{name}", module)
    return Bazaar(made["destination"].BazaarDestination, made["settings"].BazaarSettings, made["fake"].BazaarFake)


def test_the_pages_destination_delivers_and_finds_bad_events(bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAZAAR_SHOP_ID", "7")
    monkeypatch.setenv("BAZAAR_ACCESS_TOKEN", "test-token")
    clock = SimulatedClock(conversion(0)["occurred_at"] + 1_795_500_000_000_000)
    now = clock.now_micros()
    events = [conversion(now) for _ in range(250)]
    fake, ledger = bazaar.fake(), MemoryLedger()
    fake.poison = {events[17]["event_id"], events[203]["event_id"]}
    fake.script.replace([Fault("reset_after", times=1), Fault("html_502", times=1)])
    with FakeServer(fake) as server:
        destination = bazaar.destination(PlatformOptions(base_url=server.url))
        assert isinstance(destination.name, str)
        checked: Destination = destination
        credentials = Credentials("bazaar", load(bazaar.settings).credentials())
        sender = BatchSender(checked, HttpTransport(answer_seconds=3.0), ledger, SenderOptions(concurrency=1), clock)
        stage = ForwarderStage(Route(checked, credentials), sender, ledger, clock)
        try:
            outcome = stage.handle(records(events, now_micros=now))
        finally:
            stage.close()
    assert set(fake.script.fired) == {"reset_after", "html_502"}
    assert sorted(letter.record.offset for letter in outcome.dead_letters) == [17, 203]
    assert len(fake.received.by_key) == 248
    assert fake.received.largest_request == 100
    assert {count.state.value: count.deliveries for count in ledger.counts()}["sent"] == 248


def test_half_an_account_is_named(bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch) -> None:
    from attributary.consumers.runtime.errors import ConfigError

    monkeypatch.delenv("BAZAAR_ACCESS_TOKEN", raising=False)
    monkeypatch.setenv("BAZAAR_SHOP_ID", "7")
    with pytest.raises(ConfigError) as caught:
        load(bazaar.settings).credentials()
    assert caught.value.variable == "BAZAAR_ACCESS_TOKEN"
