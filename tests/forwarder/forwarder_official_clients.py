"""Our requests and stand-ins beside the official clients of Google and Microsoft; run by hand, it installs them once.

    python -m tests.forwarder.forwarder_official_clients [--folder .attributary/official-clients]

What it asks: are our bodies requests by Google's own schema (`google-ads-datamanager`), does Google's client read
every answer of our stand-in, are the reasons that we know Google's; are our hashes those of
`google-ads-datamanager-util`; has our stand-in of Microsoft's offline conversions the fields that `bingads` describes.
One JSON object a question; exit code 1 when one disagrees. The packages come by name from the index that pip knows.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.destination import Account, Moment, PreparedEvent
from attributary.consumers.destinations.google.responses import REASONS
from attributary.local.fakes import GoogleFake
from attributary.local.fakes.bingads import FIELDS
from attributary.local.fakes.server import FakeServer
from attributary.producers.matching import google as google_rules
from benchmarks.environment import install
from tests.forwarder.forwarder_factories import HASH, account_at, conversion, destination_at
from tests.forwarder.test_forwarder_google import ANALYTICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGES = ("google-ads-datamanager", "google-ads-datamanager-util", "bingads")
_PEER = Path(__file__).with_name("forwarder_official_peer.py")
_NAMES = {name: [HASH] for name in ("sha256_email_address", "sha256_phone_number")}
_PEOPLE = {"google_hashes": _NAMES | {name: [HASH] for name in ("sha256_first_name", "sha256_last_name")}}
# A status of gRPC, and no reason of its own: the API answers it when it is away.
_STATUSES = frozenset(("UNAVAILABLE",))
TEXTS = {
    "email_address": [
        " Alexz@Example.com ", "cloudy.sanfrancisco+shopping@gmail.com", "User.Name+NYC@example.com",
        "a.b@googlemail.com",
    ],
    "phone_number": ["1 800 555 0100", "+1 (800) 555-0100", "+49 171 1234567", "+44 20 7946 0958"],
    "given_name": ["Jane", " JANE ", "Anna Maria", "Valéry", "Jean-Luc"],
    "family_name": ["Doe", "O'Brien", "Müller"],
}  # fmt: skip
_KEYS = {
    "email_address": "sha256_email_address",
    "phone_number": "sha256_phone_number",
    "given_name": "sha256_first_name",
    "family_name": "sha256_last_name",
}
# Where we follow Google Analytics' page on user data, which drops digits and symbols, and the utility keeps them.
OTHERWISE = frozenset(("Jean-Luc", "O'Brien"))


def bodies() -> dict[str, Any]:
    """Return bodies as we send them, and some that are wrong."""
    now = time.time_ns() // 1_000
    destination = destination_at("google", "https://api.example")
    ads = account_at("google")
    stream = Account("acme", "google", ANALYTICS.name, ANALYTICS.secret, ANALYTICS.options, ANALYTICS.event_names)

    def body(account: Account, **changes: Any) -> dict[str, Any]:
        event = destination.build(conversion(now, **changes), account, Moment(now, now))
        assert isinstance(event, PreparedEvent), event
        found: dict[str, Any] = json.loads(destination.request(account, [event]).body)
        return found

    person = _PEOPLE | {"postal_code": "94045", "country": "US"}
    found = {
        "purchase": body(ads, user_data=person, click_ids={"gclid": "Cj0-AbC"}),
        "restatement": body(ads, kind="restatement", conversion_id="c-1"),
        "cancellation": body(ads, kind="cancellation", conversion_id="c-1"),
        "analytics purchase": body(stream, properties={"coupon": "X", "tax": "1.5"}),
        "analytics lead": body(stream, conversion_type="lead", items=[]),
        "analytics refund": body(stream, kind="refund", conversion_id="c-1"),
    }
    wrong = {name: copy.deepcopy(found["purchase"]) for name in ("validated", "no hash", "no action", "unknown field")}
    wrong["validated"]["validateOnly"] = True
    wrong["no hash"]["events"][0]["userData"]["userIdentifiers"][0]["emailAddress"] = "jane"
    wrong["no action"]["destinations"][0]["productDestinationId"] = "9"
    wrong["unknown field"]["events"][0]["colour"] = "red"
    return found | wrong


def ask(python: Path, *arguments: str, given: Any = None) -> Any:
    """Run the peer with a document; return its own."""
    done = subprocess.run(
        [str(python), str(_PEER), *arguments], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arguments[0]}: {done.stderr[-2_000:]}")
    return json.loads(done.stdout)


def google_disagreements(python: Path) -> Iterator[str]:
    """Yield what Google's client does not take of ours."""
    cases = bodies()
    with FakeServer(GoogleFake(actions=["7001", "7002", "G-A1"])) as server:
        found = ask(python, "google", server.url, given=cases)
    answers: Mapping[str, Any] = found["answers"]
    expected: dict[str, Any] = {
        "validated": {"request_id": ""},
        "no hash": {
            "error": 400, "fields": [["events[0].user_data.user_identifiers[0]", "INVALID_SHA256_FORMAT"]],
        },
        "no action": {
            "error": 400, "fields": [["destinations[0].product_destination_id", "INVALID_CONVERSION_ACTION_ID"]],
        },
    }  # fmt: skip
    for name, answer in answers.items():
        is_good = bool(answer.get("request_id")) and answer.get("statuses") == ["PROCESSING"]
        if name == "unknown field":
            is_good = "parse" in answer
        elif name in expected:
            is_good = answer == expected[name]
        if not is_good:
            yield f"{name}: {answer}"
    yield from (f"no reason of Google's: {word}" for word in sorted(REASONS.keys() - set(found["reasons"]) - _STATUSES))


def formatter_disagreements(python: Path) -> Iterator[str]:
    """Yield the texts of which Google's utility makes another hash."""
    for kind, digests in ask(python, "formatter", given=TEXTS).items():
        for text, digest in digests.items():
            ours = google_rules.hashed(_KEYS[kind], text, regions=("US",))
            if (digest in ours) is (text in OTHERWISE):
                yield f"{kind} {text!r}: {digest}, ours {ours}"


def microsoft_disagreements(python: Path) -> Iterator[str]:
    """Yield the fields of Microsoft's types that our stand-in does not have, or has alone."""
    found = ask(python, "microsoft")
    for operation, ours in FIELDS.items():
        if difference := set(found[operation.removesuffix("s")]) ^ ours:
            yield f"{operation}: {sorted(difference)}"
    if missing := {"Code", "ErrorCode", "Index"} - set(found["BatchError"]):
        yield f"BatchError: {sorted(missing)}"


def main() -> None:
    """Print what each question found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".attributary/official-clients"))
    folder: Path = parser.parse_args().folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = install(folder, PACKAGES, "google.ads.datamanager_v1, google.ads.datamanager_util, bingads").absolute()
    questions = {
        "google-ads-datamanager": google_disagreements,
        "google-ads-datamanager-util": formatter_disagreements,
        "bingads": microsoft_disagreements,
    }
    is_good = True
    for client, question in questions.items():
        found = list(question(python))
        is_good = is_good and not found
        print(json.dumps({"client": client, "passes": not found, "disagreements": found}), flush=True)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
