"""Ask the platforms whether the accounts of the settings are good, without sending them a conversion.

Contract: `AccountChecker.check` gives one `AccountCheck` for every account and never raises for what the network or a
platform does. It looks at the end of the token, takes an access token where the account has a grant, and sends the
probe of the destination (`Destination.probe`) with an event of an invented person; without a probe it says so.

Invariants: no ledger, no Kafka, and nothing of a real person leaves. What a platform says is quoted, since the event is
ours, but cut at 200 characters, and without the account's secrets, e-mail addresses and whatever looks like a token.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, quote_plus

from attributary.consumers.destinations.account_fields import TOKEN_EXPIRES
from attributary.consumers.destinations.ad_platform import AdPlatform
from attributary.consumers.destinations.attempts import Attempts, SenderOptions
from attributary.consumers.destinations.catalog import CATALOG
from attributary.consumers.destinations.destination import (
    DeliveryResponse,
    Moment,
    NotSent,
    PreparedEvent,
    ResponseClass,
)
from attributary.consumers.destinations.oauth2.access_tokens import UsesAccessTokens
from attributary.consumers.destinations.oauth2.token_files import TokenFiles
from attributary.consumers.destinations.wire_format import from_json
from attributary.producers.matching.text import sha256_hex
from attributary.schemas.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from attributary.consumers.destinations.catalog import Setup
    from attributary.consumers.destinations.destination import Account, Conversion, HttpRequest
    from attributary.consumers.destinations.transport import Clock, Transport

EVENT_TYPE = "attributary_validation"
"""Conversion type of the invented event, where a destination takes types of any name."""

_AT_ONCE = 8
_MINUTE = 60_000_000  # micros
_DAYS_WARNED = 14
_MAX_TEXT = 200
_MAX_READ = 1_000
_MAX_TEXTS = 5
_MAX_DEPTH = 6
_MAX_ENTRIES = 20
_PERSON = sha256_hex("validation@attributary.invalid")
_SOURCES = ("website", "app", "physical_store")
_TEXTS = frozenset(("message", "error_description", "reason", "description", "error_message", "field", "fieldPath"))
_EMAIL = re.compile(r"[^\s\"'<>,;:()]+(?:@|%40)[^\s\"'<>,;()]+")
_TOKEN = re.compile(r"(?=[A-Za-z_+/=%-]*[0-9])[A-Za-z0-9_+/=%-]{20,}")
_GONE = "***"
_LOST = (
    "the platform has replaced the refresh token, and the new one is lost: set FORWARD_TOKEN_DIR, and authorise again "
    "if the old one is refused"
)
_KEY_SECRETS = ("private_key", "private_key_id", "client_email", "client_id")


class CheckState(enum.Enum):
    """What a check has found."""

    OK = "ok"
    REFUSED = "refused"
    UNREACHABLE = "cannot be reached"
    NOT_CHECKED = "not checked"


class AccountCheck(NamedTuple):
    """What was found of one account.

    Attributes:
        tenant: the owner; `*` stands for all without an account of their own.
        account: its id.
        state: the verdict.
        said: what the platform said, or why it was not asked.
        next_step: what to do, or to know; empty: nothing.
    """

    tenant: str
    account: str
    state: CheckState
    said: str
    next_step: str = ""


class AccountChecker:
    """Checks the accounts of one destination.

    Args:
        setup: of the destination, as the forwarder reads it.
        transport: connections.
        clock: where time comes from.
    """

    def __init__(self, setup: Setup, transport: Transport, clock: Clock) -> None:
        self._setup = setup
        self._destination = setup.destination
        self._clock = clock
        self._title = CATALOG[setup.destination.name].title
        files = TokenFiles(setup.shared.token_dir) if setup.shared.token_dir else None
        self._attempts = Attempts(setup.destination, transport, SenderOptions(), clock, files)

    def check(self) -> list[AccountCheck]:
        """Check every account; one that serves several tenants is asked about once."""
        listed = self._setup.credentials.listed()
        different = {_identity(account): account for _, account in listed}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._checked, different.values()))
        if self._attempts.forgets_refresh_token:  # known when all have been asked; accounts may share a token
            found = [
                self._warned(check, _LOST) if self._has_refresh_token(account) else check
                for check, account in zip(found, different.values(), strict=True)
            ]
        checks = dict(zip(different, found, strict=True))
        return [checks[_identity(account)]._replace(tenant=tenant) for tenant, account in listed]

    def _checked(self, account: Account) -> AccountCheck:
        day = account.options.get(TOKEN_EXPIRES)
        left = self._days_left(day) if day else None
        if left is not None and left < 0:
            said = f"not asked: the last day of the token was {day}"
            return self._result(account, CheckState.REFUSED, said, "make a new token, set it and its last day")
        event = self._event(account)
        if isinstance(event, NotSent) or self._destination.probe(account, event) is None:
            found = self._without_probe(account, event)
        else:
            found = self._probed(account, event)
        if left is not None and left < _DAYS_WARNED:
            return self._warned(found, f"the token ends on {day}: make a new one")
        return found

    @staticmethod
    def _warned(check: AccountCheck, warning: str) -> AccountCheck:
        return check._replace(next_step="; ".join(filter(None, (check.next_step, warning))))

    def _has_refresh_token(self, account: Account) -> bool:
        grant = self._destination.grant(account) if isinstance(self._destination, UsesAccessTokens) else None
        return grant is not None and grant.refresh_token is not None

    def _days_left(self, day: str) -> int:
        today = dt.datetime.fromtimestamp(self._clock.now_micros() / 1e6, dt.UTC).date()
        return (dt.date.fromisoformat(day) - today).days

    def _event(self, account: Account) -> PreparedEvent | NotSent:
        """Return an event that the account would take: of a type of our own, of one that the settings name, any."""
        named = self._destination.named_types if isinstance(self._destination, AdPlatform) else ()
        kinds = dict.fromkeys((EVENT_TYPE, *account.event_names, *named, "page_view"))
        now = self._clock.now_micros()
        moment = Moment(now, now)
        refusals = []
        for kind in kinds:
            for source in _SOURCES:
                found = self._destination.build(_conversion(kind, source, now), account, moment)
                if isinstance(found, PreparedEvent):
                    return found
                refusals.append(found)
        return refusals[0]

    def _without_probe(self, account: Account, event: PreparedEvent | NotSent) -> AccountCheck:
        """Check what can be checked without a request to the API."""
        if refusal := self._attempts.token(account):
            return self._judged(account, refusal, "", "")
        has_grant = isinstance(self._destination, UsesAccessTokens) and self._destination.grant(account) is not None
        checked = "settings, credentials, " + ("an access token was given out" if has_grant else "a token is set")
        next_step = ""
        if isinstance(event, NotSent):
            said, next_step = f"no event can be made: {event.reason}", "set what is missing"
        elif self._destination.probe_needs:
            said = "no request without a test code"
            next_step = f"set {self._destination.probe_needs} for this command only, to send a test event"
        else:
            said = f"{self._title} has no request that changes nothing"
        return self._result(account, CheckState.NOT_CHECKED, f"{said}; checked: {checked}", next_step)

    def _probed(self, account: Account, event: PreparedEvent) -> AccountCheck:
        secrets = {account.secret, *account.options.values()} - {account.account_id}

        def make(caller: Account) -> HttpRequest:
            secrets.add(caller.secret)  # an access token, where the account has a grant
            request = self._destination.probe(caller, event)
            assert request is not None  # noqa: S101  # the same account had one
            return request

        _, response = self._attempts.ask(account, make)
        if isinstance(response, DeliveryResponse):
            return self._judged(account, response, event.name, "")
        answer = self._destination.read_probe(response)
        is_good = answer.response_class is ResponseClass.DELIVERED
        quoted = "" if is_good else quoted_text(response.body, _all_secrets(account, secrets))
        return self._judged(account, answer, event.name, quoted)

    def _judged(self, account: Account, answer: DeliveryResponse, name: str, quoted: str) -> AccountCheck:
        said = ": ".join(part for part in (answer.code, answer.reason) if part) + (f'; "{quoted}"' if quoted else "")
        match answer.response_class:
            case ResponseClass.DELIVERED:
                return self._result(
                    account, CheckState.OK, f"{said}, to a test with the event {name}", self._destination.probe_note
                )
            case ResponseClass.ACCOUNT_STOPPED:
                return self._result(account, CheckState.REFUSED, said, f"correct {self._place()}, or its rights")
            case ResponseClass.REJECTED | ResponseClass.NAME_STOPPED:
                next_step = f"the account answers, and refuses the event {name}: look at its ids and event names"
                return self._result(account, CheckState.REFUSED, said, next_step)
            case ResponseClass.THROTTLED:
                return self._result(account, CheckState.UNREACHABLE, said, "run the command again later")
        variable = f"{self._destination.name.upper()}_BASE_URL"
        return self._result(
            account,
            CheckState.UNREACHABLE,
            said,
            f"look at the network, FORWARD_PROXY_URL and {variable}, and run the command again",
        )

    def _place(self) -> str:
        if self._setup.shared.credentials_file:
            return "the account in FORWARD_CREDENTIALS_FILE"
        return CATALOG[self._destination.name].variables

    @staticmethod
    def _result(account: Account, state: CheckState, said: str, next_step: str) -> AccountCheck:
        return AccountCheck(account.tenant_id, account.account_id, state, said, next_step)


def _identity(account: Account) -> tuple[Any, ...]:
    return account.account_id, account.secret, *(frozenset(d.items()) for d in (account.options, account.event_names))


def _conversion(kind: str, source: str, now: int) -> Conversion:
    """Return a conversion of a person that nobody is, a minute old."""
    codec = Codec()
    fields: dict[str, Any] = {
        "tenant_id": "validation",
        "event_id": f"{EVENT_TYPE}-{now}",
        "conversion_type": kind,
        "occurred_at": now - _MINUTE,
        "user_data": {"meta_hashes": {"em": [_PERSON]}, "google_hashes": {"sha256_email_address": [_PERSON]}},
        "action_source": source,
        "event_source_url": "https://attributary.invalid/validation",
        "client_ip_address": "203.0.113.1",  # for documentation: nobody has it
        "client_user_agent": "attributary-validation",
        "ga_client_id": "1.1",
        "ga_app_instance_id": _PERSON[:32] if source == "app" else None,
        "properties": {"operating_system": "android"} if source == "app" else {},
        "consent": dict.fromkeys(("ad_storage", "ad_user_data", "ad_personalization", "analytics_storage"), True),
    }
    return codec.decode("conversion", codec.encode("conversion", fields))


def _all_secrets(account: Account, secrets: Iterable[str]) -> set[str]:
    """Return secrets with the texts inside of a key file."""
    key = from_json(account.secret.encode())
    inner = [key.get(name) for name in _KEY_SECRETS] if isinstance(key, dict) else []
    return {*secrets, *(text for text in inner if isinstance(text, str))}


def quoted_text(body: bytes, secrets: Iterable[str]) -> str:
    """Return what an answer in JSON says to people, without secrets, addresses and tokens; empty without any.

    Args:
        body: of the answer.
        secrets: texts that must not show, in whatever spelling of a URL.
    """
    document = from_json(body)
    found = dict.fromkeys(_texts(document)) if isinstance(document, dict) else {}
    text = "; ".join(list(found)[:_MAX_TEXTS])
    spellings = {spelt for secret in secrets if secret for spelt in _spellings(secret)}
    for secret in sorted(spellings, key=len, reverse=True):
        text = text.replace(secret, _GONE)
    if len(text) > _MAX_READ:  # the patterns below must not meet megabytes, nor half a token
        text = text[:_MAX_READ].rpartition(" ")[0]
    text = " ".join(_TOKEN.sub(_GONE, _EMAIL.sub(_GONE, text)).split())
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


def _spellings(secret: str) -> Sequence[str]:
    return secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts for people in a document, the outer ones first."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for each in value[:_MAX_ENTRIES]:
            yield from _texts(each, depth + 1)
        return
    if not isinstance(value, dict):
        return
    entries: Mapping[str, Any] = value
    yield from (text for name, text in entries.items() if name in _TEXTS and isinstance(text, str) and text)
    for each in list(entries.values())[:_MAX_ENTRIES]:
        yield from _texts(each, depth + 1)
