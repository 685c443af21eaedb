"""Nothing personal and no secret reaches logs, metrics, errors, the ledger or the headers of dead letters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.destination import HttpResponse
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.runtime.dead_letters import dead_letter_message
from attributary.consumers.runtime.errors import Retry
from attributary.local.fakes import Fault, MetaFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import HASH, ScriptedTransport, SimulatedClock, conversion, records

if TYPE_CHECKING:
    import pytest

    from attributary.consumers.runtime.records import DeadLetter
    from tests.forwarder.conftest import MakeStage

PERSON = {
    "email": "jane.private@example.com",
    "phone": "+491711234567",
    "first_name": "Janeprivate",
    "last_name": "Doeprivate",
    "street": "Secretstreet 5",
    "city": "Hiddentown",
    "date_of_birth": "1997-02-16",
    "external_id": "external-private",
}
ADDRESS = "203.0.113.77"
SECRETS = ("test-token", "test-secret")
PRIVATE = (*PERSON.values(), "491711234567", "19970216", ADDRESS, "private-user", "private-agent", HASH[:20], *SECRETS)


def events(now: int) -> list[dict[str, Any]]:
    person = {
        "user_data": PERSON,
        "client_ip_address": ADDRESS,
        "user_id": "private-user",
        "client_user_agent": "private-agent",
    }
    return [
        conversion(now, **person),
        conversion(now, **person, currency="XXX", value_micros=0, items=[]),
        conversion(now, **person, order_id="x" * 120),
        conversion(now, **person, conversion_type="session_start"),
        conversion(now, **person, consent=None),
        conversion(now, **person, click_ids={"fbc": "jane.private@example.com", "fbp": ADDRESS}),
        conversion(now, **person, properties={"jane.private@example.com": "x", "note": "Secretstreet 5" * 20}),
        conversion(now, **person, ga_session_id="jane.private@example.com"),
        conversion(now, **person, occurred_at=now + 5 * 86_400_000_000),
    ]


def test_nothing_personal_leaves_by_any_other_door(
    capsys: pytest.CaptureFixture[str], clock: SimulatedClock, make_stage: MakeStage
) -> None:
    options = SenderOptions(concurrency=1, attempts=2, first_backoff=0.001, max_backoff=0.002, unproven=19)
    letters: list[DeadLetter] = []
    texts: list[str] = []
    quoting = HttpResponse(
        400, json.dumps({"error": {"code": 100, "message": "bad jane.private@example.com", "fbtrace_id": "T"}}).encode()
    )

    def run(stage: Any) -> None:
        try:
            letters.extend(stage.handle(records(events(clock.micros), now_micros=clock.micros)).dead_letters)
        except Retry as error:
            texts.append(str(error))
        clock.sleep(120)

    for name in ("meta", "ga4"):
        ledger = MemoryLedger()
        refusing = ScriptedTransport(lambda _: quoting)
        run(make_stage(name, "http://x", clock, ledger=ledger, options=options, transport=refusing))
        texts.append(repr(list(ledger.rows.values())))
        broken = ScriptedTransport(lambda _: HttpResponse(0, fault="ReadTimeout", perhaps_sent=True))
        run(make_stage(name, "http://x", clock, options=options, transport=broken))
        run(make_stage(name, "http://127.0.0.1:9", clock, options=options))
    fake = MetaFake(tokens=["another"])
    with FakeServer(fake) as server:
        run(make_stage("meta", server.url, clock, options=options))
        fake.script.replace([Fault("account_limit", times=1)])
        run(make_stage("meta", server.url, clock, options=options))
    assert len(letters) > 5, "there is something to look at"
    assert len(texts) > 3
    for letter in letters:
        message = dead_letter_message(letter, "forwarder_meta", "attribution.forwarder.meta")
        texts += [repr(message.headers), letter.reason, str(letter.field)]
    captured = capsys.readouterr()
    assert "not delivered" in captured.out, "logs are looked at"
    texts += [captured.out, captured.err, generate_latest().decode()]
    everything = "\n".join(texts).lower()
    for value in PRIVATE:
        assert value.lower() not in everything, f"{value!r} got out"
